# A likelihood of one's own, of a table with gaps and a factor, in R.
table <- na.omit(read.csv("births.csv", na.strings = ""))
table <- table[!is.na(table$age), ]
x <- model.matrix(~ age + race, table)

nll <- function(theta) {
  z <- (table$lwt - x %*% theta[1:4]) / theta[5]
  -sum(dt(z, 4, log = TRUE) - log(theta[5]))
}

gradient <- function(theta) numDeriv::grad(nll, theta)
hessian <- function(theta) numDeriv::hessian(nll, theta)
start <- c(100, 0, 0, 0, 20)
fit <- nlminb(start, nll, gradient, hessian, control = list(rel.tol = 1e-15))
se <- sqrt(diag(solve(hessian(fit$par))))
z <- fit$par / se
print(data.frame(estimate = fit$par, se, z, p = 2 * pnorm(-abs(z)), low = fit$par - 1.96 * se,
                 high = fit$par + 1.96 * se, row.names = c(colnames(x), "scale")))
answers <- list(estimate = fit$par, std_error = se, loglik = -fit$objective)
