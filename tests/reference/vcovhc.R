# Makes data/r_vcovhc.json: Rscript vcovhc.R data
suppressMessages({library(sandwich); library(jsonlite)})
here <- commandArgs(TRUE)[1]
kinds <- c("const", "HC0", "HC1", "HC2", "HC3")
case <- function(model) { out <- list(coef = unname(coef(model)))
  for (k in kinds) out[[k]] <- unname(vcovHC(model, type = k)); out }
cars <- read.csv(file.path(here, "s09_linear_mtcars.csv")); birth <- read.csv(file.path(here, "s10_logit_birthwt.csv")); ins <- read.csv(file.path(here, "s12_poisson_offset_insurance.csv"))
tight <- glm.control(epsilon = 1e-15, maxit = 100)
f <- low ~ age + lwt + black + other + smoke + ptl + ht + ui
out <- list(R = paste(R.version$major, R.version$minor, sep = "."), sandwich = as.character(packageVersion("sandwich")),
  recipe = "vcovHC(model, type) of the sandwich package on lm(mpg ~ wt + hp + qsec, s09), glm(low ~ ..., binomial(link), s10), glm(claims ~ ... + offset(log(holders)), poisson, s12), glm.control(epsilon = 1e-15); const is the model's own covariance",
  linear = case(lm(mpg ~ wt + hp + qsec, cars)),
  logit = case(glm(f, binomial("logit"), birth, control = tight)), probit = case(glm(f, binomial("probit"), birth, control = tight)), cloglog = case(glm(f, binomial("cloglog"), birth, control = tight)),
  poisson = case(glm(claims ~ dist2 + dist3 + dist4 + group_n + age_n + offset(log(holders)), poisson(), ins, control = tight)))
write_json(out, file.path(here, "r_vcovhc.json"), digits = 16, auto_unbox = TRUE)
