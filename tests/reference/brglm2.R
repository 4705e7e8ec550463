# Makes data/r_brglm2.json: Rscript brglm2.R data
suppressMessages({library(brglm2); library(jsonlite)})
here <- commandArgs(TRUE)[1]
control <- function(type) list(type = type, epsilon = 1e-12, maxit = 2000)
one <- function(type, formula, family, data, ...) {
  m <- glm(formula, family = family, data = data, method = "brglmFit", control = control(type), ...)
  list(coef = unname(coef(m)), se = unname(sqrt(diag(vcov(m)))[seq_along(coef(m))]), dispersion = m$dispersion, df.residual = m$df.residual) }
both <- function(...) list(AS_mean = one("AS_mean", ...), MPL_Jeffreys = one("MPL_Jeffreys", ...))
birth <- read.csv(file.path(here, "s10_logit_birthwt.csv")); ins <- read.csv(file.path(here, "s12_poisson_offset_insurance.csv"))
clot <- read.csv(file.path(here, "s13_gamma_log_clotting.csv")); cars <- read.csv(file.path(here, "s09_linear_mtcars.csv"))
f <- low ~ age + lwt + black + other + smoke + ptl + ht + ui
# Separated: y = 1 exactly where x > 0; no event in the group g = 1; category 3 only where x > 0.
x <- c(-2, -1.5, -1, -0.4, 0.3, 0.8, 1.1, 2); y <- as.numeric(x > 0)
g <- rep(0:1, c(5, 4)); count <- c(2, 0, 3, 1, 2, 0, 0, 0, 0)
choice <- factor(c(1, 2, 1, 2, 1, 3, 3, 3, 2, 1)); z <- c(-2, -1.2, -0.7, -0.5, -0.1, 0.2, 0.9, 1.4, -1.6, -0.3)
multinomial <- function(type) { m <- brmultinom(choice ~ z, type = type, epsilon = 1e-12, maxit = 2000); list(coef = unname(coef(m)), se = unname(summary(m)$standard.errors)) }
out <- list(R = paste(R.version$major, R.version$minor, sep = "."), brglm2 = as.character(packageVersion("brglm2")),
  recipe = "brglmFit and brmultinom of the brglm2 package, type AS_mean and MPL_Jeffreys, epsilon = 1e-12; standard errors of vcov()",
  logit = both(f, binomial("logit"), birth), probit = both(f, binomial("probit"), birth),
  poisson = both(claims ~ dist2 + dist3 + dist4 + group_n + age_n + offset(log(holders)), poisson(), ins),
  gamma = list(AS_mean = one("AS_mean", lot1 ~ logu, Gamma("log"), clot)),
  normal = list(AS_mean = one("AS_mean", mpg ~ wt + hp + qsec, gaussian(), cars)),
  separated = list(x = x, y = y, logit = both(y ~ x, binomial("logit"), data.frame(x, y)), probit = both(y ~ x, binomial("probit"), data.frame(x, y)),
    g = g, count = count, poisson = both(count ~ g, poisson(), data.frame(g, count)),
    z = z, choice = as.integer(choice), multinomial = list(AS_mean = multinomial("AS_mean"), MPL_Jeffreys = multinomial("MPL_Jeffreys"))))
write_json(out, file.path(here, "r_brglm2.json"), digits = 16, auto_unbox = TRUE)
