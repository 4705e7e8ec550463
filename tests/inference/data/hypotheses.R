# Reference numbers for tests/inference/test_hypotheses.py and its neighbours; writes hypotheses.json beside this file.
# Rscript hypotheses.R ../../reference/data/s10_logit_birthwt.csv hypotheses.json
suppressMessages({library(lmtest); library(sandwich); library(jsonlite)})
paths <- commandArgs(TRUE)
d <- read.csv(paths[1])
full <- glm(low ~ age + lwt + black + other + smoke + ptl + ht + ui, binomial, d, control = list(epsilon = 1e-15, maxit = 100))
null <- update(full, . ~ . - smoke - ht)
# glm keeps working weights and residuals of the iteration before the last; started at its own estimate they are those of the estimate.
again <- function(m) { for (i in 1:3) { m$call$start <- unname(coef(m)); m <- eval(m$call) }; m }
two <- function(test) list(statistic = test[2, grep("Chisq|^F$", names(test))[1]], pvalue = test[2, grep("Pr", names(test))])
rao <- function(a, b) { t <- anova(again(a), again(b), test = "Rao"); list(statistic = t$Rao[2], pvalue = t$`Pr(>Chi)`[2]) }
x <- model.matrix(full); mu <- fitted(again(full)); observed <- solve(crossprod(x * sqrt(mu * (1 - mu))))
u <- x * (d$low - mu); hc0 <- observed %*% crossprod(u) %*% observed
wald <- function(v, test = "Chisq") two(waldtest(full, c("smoke", "ht"), vcov = function(m) { dimnames(v) <- list(names(coef(full)), names(coef(full))); v }, test = test))
races <- c("black", "other")
at <- match(races, names(coef(full))); b <- coef(again(full))[at]
logit <- list(
  lr = two(lrtest(null, full)), rao = rao(null, full), wald = wald(observed), wald_hc0 = wald(hc0), wald_f = wald(observed, "F"),
  race = list(statistic = drop(b %*% solve(observed[at, at], b))),
  contrast = list(statistic = unname((b[1] - b[2])^2 / (observed[at[1], at[1]] + observed[at[2], at[2]] - 2 * observed[at[1], at[2]]))),
  aic = AIC(full), bic = BIC(full))
# Counts: number of premature labours on the other columns; link log.
count <- glm(ptl ~ age + lwt + smoke + ui, poisson, d, control = list(epsilon = 1e-15, maxit = 100))
small <- update(count, . ~ . - smoke - ui)
years <- d$age - 14
rate <- mean(years); prob <- 1 / (1 + rate)
m <- dpois(years, rate, log = TRUE) - dgeom(years, prob, log = TRUE)
n <- length(m); omega <- sqrt(mean(m^2) - mean(m)^2); z <- sum(m) / (sqrt(n) * omega)
p <- c(0.01, 0.02, 0.02, 0.3, NA, 0.04, 0.9, 1, 0, 0.002)
out <- list(
  software = paste("R", getRversion(), "lmtest", packageVersion("lmtest")),
  logit = logit, poisson = list(rao = rao(small, count), lr = two(lrtest(small, count))),
  vuong = list(statistic = z, pvalue = 2 * pnorm(-abs(z))),
  adjust = list(p = p, holm = p.adjust(p, "holm"), bh = p.adjust(p, "BH")))
writeLines(toJSON(out, digits = NA, auto_unbox = TRUE, na = "null", pretty = TRUE), paths[2])
