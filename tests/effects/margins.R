# R's numbers for test_margins_of_r.py: Rscript margins.R > margins_of_r.json, from tests/effects.
# Fits of glm, MASS::polr, MASS::glm.nb and nnet::multinom; averages of slopes and contrasts over the rows, as
# marginaleffects::avg_slopes has them; standard errors by the delta method from the covariance that stands beside each fit.
# Needs MASS, nnet, numDeriv and jsonlite.
suppressMessages({library(MASS); library(nnet); library(numDeriv)})

births <- read.csv("../../jaxmle/datasets/birthwt.csv")
births$race <- ifelse(births$black == 1, "black", ifelse(births$other == 1, "other", "white"))
births$weight <- (seq_len(nrow(births)) - 1) %% 3 + 1
births$level <- cut(births$lwt, c(0, 110, 130, 500), labels = c("a", "b", "c"))
births$group <- factor(births$race)
with_column <- function(name, value) { moved <- births; moved[[name]] <- value; moved }

# An estimate, and its standard error by Richardson's differences of g.
delta <- function(g, theta, vcov) {
  jacobian <- jacobian(g, theta)
  list(estimate = c(g(theta)), std_error = unname(sqrt(diag(jacobian %*% vcov %*% t(jacobian)))))
}

# The maximum and the inverse observed information of a log-likelihood, by Newton steps from near it.
maximum <- function(loglik, theta) {
  for (step in 1:6) theta <- theta - solve(hessian(loglik, theta), grad(loglik, theta))
  list(theta = theta, vcov = solve(-hessian(loglik, theta)))
}

design <- function(formula, table) model.matrix(formula, table)
control <- glm.control(epsilon = 1e-15, maxit = 100)
answers <- list()

# ---------------------------------------------------------------- logit, with a square and a weighted fit
formula <- ~ age + I(age^2) + lwt + race
fit <- glm(update(formula, low ~ .), binomial, births, control = control)
slope_of_age <- function(b, w) {
  p <- plogis(c(design(formula, births) %*% b))
  weighted.mean(p * (1 - p) * (b[2] + 2 * births$age * b[3]), w)
}
slope_of_lwt <- function(b, w) {
  p <- plogis(c(design(formula, births) %*% b))
  weighted.mean(p * (1 - p) * b[4], w)
}
contrast <- function(b, level, w) weighted.mean(
  plogis(c(design(formula, with_column("race", factor(level, c("black", "other", "white")))) %*% b)) -
  plogis(c(design(formula, with_column("race", factor("black", c("black", "other", "white")))) %*% b)), w)
effects <- function(b, w) c(slope_of_age(b, w), slope_of_lwt(b, w), contrast(b, "other", w), contrast(b, "white", w))
one <- rep(1, nrow(births))
answers$logit <- delta(function(b) effects(b, one), coef(fit), vcov(fit))
weighted <- suppressWarnings(update(fit, weights = births$weight))
answers$logit_weighted <- delta(function(b) effects(b, births$weight), coef(weighted), vcov(weighted))
of_smokers <- function(b, smoke) {
  rows <- births$smoke == smoke
  mean(plogis(c(design(formula, births) %*% b))[rows])
}
answers$logit_by <- delta(function(b) c(of_smokers(b, 0), of_smokers(b, 1)), coef(fit), vcov(fit))

# ---------------------------------------------------------------- Poisson, with a logarithm, an interaction and an offset
formula <- ~ log(lwt) * smoke
fit <- glm(ptl ~ log(lwt) * smoke + offset(log(age)), poisson, births, control = control)
mean_of <- function(b, table) exp(c(design(formula, table) %*% b)) * table$age
effects <- function(b) c(
  mean(mean_of(b, births) * (b[2] + births$smoke * b[4]) / births$lwt),
  mean(mean_of(b, with_column("smoke", 1)) - mean_of(b, with_column("smoke", 0))))
answers$poisson <- delta(effects, coef(fit), vcov(fit))
answers$poisson_prediction <- delta(
  function(b) c(mean(mean_of(b, with_column("lwt", 120))), mean(mean_of(b, with_column("lwt", 150)))), coef(fit), vcov(fit))

# ---------------------------------------------------------------- negative binomial
quine$male <- as.numeric(quine$Sex == "M")
quine$old <- as.numeric(quine$Age == "F3")
fit <- glm.nb(Days ~ male + old, quine, control = glm.control(epsilon = 1e-15, maxit = 200))
x <- cbind(1, quine$male, quine$old)
loglik <- function(t) sum(dnbinom(quine$Days, size = 1 / t[4], mu = exp(c(x %*% t[1:3])), log = TRUE))
best <- maximum(loglik, c(coef(fit), 1 / fit$theta))
slopes <- function(b) c(mean(exp(c(x %*% b[1:3]))) * b[2], mean(exp(c(x %*% b[1:3]))) * b[3])
answers$negative_binomial <- delta(slopes, best$theta, best$vcov)
# not vcov(fit): glm.nb's covariance is the inverse expected information with theta known
answers$quine <- list(days = quine$Days, male = quine$male, old = quine$old)

# ---------------------------------------------------------------- ordered classes
formula <- ~ age + smoke
fit <- polr(level ~ age + smoke, births, Hess = TRUE, control = list(reltol = 1e-15))
x <- design(formula, births)[, -1]
class_probability <- function(t) {
  below <- plogis(outer(-c(x %*% t[1:2]), t[3:4], "+"))
  cbind(below, 1) - cbind(0, below)
}
y <- cbind(seq_len(nrow(births)), as.integer(births$level))
best <- maximum(function(t) sum(log(class_probability(t)[y])), c(coef(fit), fit$zeta))
density <- function(t) {
  p <- plogis(outer(-c(x %*% t[1:2]), t[3:4], "+"))
  cbind(p * (1 - p), 0) - cbind(0, p * (1 - p))
}
answers$ordinal <- delta(function(t) c(-t[1] * colMeans(density(t)), -t[2] * colMeans(density(t))), best$theta, best$vcov)

# ---------------------------------------------------------------- multinomial
formula <- ~ age + smoke
fit <- multinom(group ~ age + smoke, births, trace = FALSE, reltol = 1e-15, maxit = 500)
x <- design(formula, births)
class_probability <- function(t, x) {
  e <- exp(cbind(0, x %*% matrix(t, 3)))
  e / rowSums(e)
}
y <- cbind(seq_len(nrow(births)), as.integer(births$group))
best <- maximum(function(t) sum(log(class_probability(t, x)[y])), c(t(coef(fit))))
slopes <- function(t) {
  p <- class_probability(t, x)
  b <- cbind(0, matrix(t, 3))
  effect <- function(j) colMeans(p * (matrix(b[j, ], nrow(p), 3, TRUE) - c(p %*% b[j, ])))
  low <- x; low[, 3] <- 0
  high <- x; high[, 3] <- 1
  c(effect(2), colMeans(class_probability(t, high) - class_probability(t, low)))
}
answers$multinomial <- delta(slopes, best$theta, best$vcov)

answers$software <- paste(R.version.string, "MASS", packageVersion("MASS"), "nnet", packageVersion("nnet"))
cat(jsonlite::toJSON(answers, digits = 15, auto_unbox = TRUE), "\n")
