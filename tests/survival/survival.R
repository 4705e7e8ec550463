# R's numbers for test_survival_of_r.py: Rscript survival.R > survival_of_r.json, from tests/survival.
# Needs survival, broom and jsonlite. Everything is of the lung data of jaxmle/datasets, with months for ties, and entries,
# weights, clusters and causes made of the row numbers.
suppressMessages(library(survival))
lung <- read.csv("../../jaxmle/datasets/lung.csv")
place <- seq_len(nrow(lung)) - 1
lung$month <- ceiling(lung$time / 30.4375)
lung$entry <- ifelse(place %% 4 == 0, pmin(place %% 5, lung$month - 1), 0)
lung$weight <- place %% 3 + 1
lung$share <- 0.5 + (place %% 7) / 4
lung$cluster <- place %% 20
lung$cause <- ifelse(lung$death == 1, place %% 2 + 1, 0)
lung$part <- 0.1 * (place %% 3)
answers <- list(software = paste(R.version.string, "survival", packageVersion("survival"), "broom", packageVersion("broom")))

# ---------------------------------------------------------------- without a model
curve <- function(fit) list(time = fit$time, estimate = fit$surv, std_error = summary(fit, times = fit$time)$std.err,
                            lower = fit$lower, upper = fit$upper)
bands <- c("log", "log-log", "plain", "logit", "arcsin")
for (band in bands) {
  answers[[paste("km", band)]] <- curve(survfit(Surv(month, death) ~ 1, lung, conf.type = band))
  answers[[paste("km entry", band)]] <-
    curve(survfit(Surv(entry, month, death) ~ 1, lung, weights = weight, conf.type = band))
}
plain <- survfit(Surv(month, death) ~ 1, lung)
robust <- survfit(Surv(month, death) ~ 1, lung, weights = share, robust = TRUE)
answers[["km robust"]] <- curve(robust)
answers[["na"]] <- list(estimate = plain$cumhaz, std_error = plain$std.chaz)
answers[["na robust"]] <- list(estimate = robust$cumhaz, std_error = robust$std.chaz)
q <- quantile(plain, c(0.25, 0.5, 0.75))
answers[["quantile"]] <- list(estimate = q$quantile, lower = q$lower, upper = q$upper)
rmean <- summary(plain, rmean = 20)$table
answers[["mean"]] <- unname(c(rmean["rmean"], rmean["se(rmean)"]))
risks <- survfit(Surv(month, factor(cause, 0:2)) ~ 1, lung)
answers[["causes"]] <- list(estimate = risks$pstate[, 2:3], std_error = risks$std.err[, 2:3])

# ---------------------------------------------------------------- Cox
exact <- coxph.control(eps = 1e-13, toler.chol = 1e-14, iter.max = 50)
new <- data.frame(age = c(50, 70), ecog = c(0, 2), part = c(0.1, 0), sex = c(1, 2))
residuals_of <- function(fit) lapply(  # every fourth of them
  c(martingale = "martingale", deviance = "deviance", score = "score", dfbeta = "dfbeta", schoenfeld = "schoenfeld",
    scaledsch = "scaledsch"),
  function(kind) { r <- as.matrix(residuals(fit, kind)); unname(r[seq(1, nrow(r), 4), ]) })
curves_of <- function(fit, ...) {  # row by row: some bands of a matrix lose its dimensions in this version
  rows <- lapply(1:2, function(i) summary(survfit(fit, newdata = new[i, ], ...), times = c(1, 6, 12, 20)))
  take <- function(name) unname(t(sapply(rows, function(s) s[[name]])))
  list(estimate = take("surv"), std_error = take("std.err"), lower = take("lower"), upper = take("upper"))
}
for (ties in c("efron", "breslow")) {
  fit <- coxph(Surv(month, death) ~ age + ecog + offset(part), lung, ties = ties, control = exact)
  # not basehaz(fit, centered = FALSE), which leaves the mean offset in
  base <- survfit(fit, newdata = data.frame(age = 0, ecog = 0, part = 0))
  zph <- lapply(c("km", "rank", "log", "identity"), function(g) unname(cox.zph(fit, transform = if (g == "log") log else g)$table))
  names(zph) <- c("km", "rank", "log", "identity")
  answers[[ties]] <- c(list(estimate = unname(coef(fit)), vcov = unname(vcov(fit)), loglik = fit$loglik[2],
    base_time = base$time, base = base$cumhaz, zph = zph, curves = curves_of(fit)), residuals_of(fit))
  rich <- coxph(Surv(entry, month, death) ~ age + ecog + strata(sex), lung, weights = weight, ties = ties, control = exact,
                robust = FALSE)
  base <- basehaz(rich, centered = FALSE)
  answers[[paste("rich", ties)]] <- c(list(estimate = unname(coef(rich)), vcov = unname(vcov(rich)),
    base_time = base$time, base = base$hazard, base_stratum = as.character(base$strata), zph = unname(cox.zph(rich)$table)),
    residuals_of(rich))
  sandwich <- coxph(Surv(month, death) ~ age + ecog, lung, ties = ties, robust = TRUE, control = exact)
  clustered <- coxph(Surv(month, death) ~ age + ecog, lung, ties = ties, cluster = cluster, control = exact)
  answers[[paste("robust", ties)]] <- list(sandwich = unname(vcov(sandwich)), clustered = unname(vcov(clustered)))
}
fit <- coxph(Surv(month, death) ~ age + ecog, lung, ties = "breslow", control = exact)
answers[["kp"]] <- curves_of(fit, stype = 1, ctype = 1)
for (band in bands) answers[[paste("cox", band)]] <- curves_of(fit, conf.type = band)
zph <- cox.zph(coxph(Surv(month, death) ~ age + factor(ecog), lung, control = exact))
answers[["zph terms"]] <- unname(zph$table)

# ---------------------------------------------------------------- accelerated failure times
for (dist in c("weibull", "exponential", "lognormal", "loglogistic")) {
  fit <- survreg(Surv(time, death) ~ age + ecog, lung, dist = dist, control = survreg.control(rel.tolerance = 1e-14, maxiter = 100))
  robust <- survreg(Surv(time, death) ~ age + ecog, lung, dist = dist, robust = TRUE,
                    control = survreg.control(rel.tolerance = 1e-14, maxiter = 100))
  clustered <- survreg(Surv(time, death) ~ age + ecog, lung, dist = dist, cluster = cluster,
                       control = survreg.control(rel.tolerance = 1e-14, maxiter = 100))
  quantiles <- predict(fit, new, type = "quantile", p = c(0.1, 0.5, 0.9), se.fit = TRUE)
  answers[[dist]] <- list(estimate = unname(coef(fit)), scale = fit$scale, loglik = fit$loglik[2],
    std_error = unname(sqrt(diag(vcov(fit))))[1:3], robust = unname(sqrt(diag(vcov(robust))))[1:3],
    clustered = unname(sqrt(diag(vcov(clustered))))[1:3],
    lp = unname(predict(fit, new, type = "lp")), lp_se = unname(predict(fit, new, type = "lp", se.fit = TRUE)$se.fit),
    quantile = quantiles$fit, quantile_se = quantiles$se.fit)
}

# ---------------------------------------------------------------- tables
births <- read.csv("../../jaxmle/datasets/birthwt.csv")
tidy_of <- function(fit, interval) {
  t <- broom::tidy(fit, exponentiate = TRUE)
  list(term = t$term, estimate = t$estimate, std_error = t$std.error, statistic = t$statistic, p_value = t$p.value,
       conf_low = unname(exp(interval[, 1])), conf_high = unname(exp(interval[, 2])))
}
tight <- glm.control(epsilon = 1e-15, maxit = 100)
logit <- glm(low ~ age + smoke, binomial, births, control = tight)
poisson <- glm(ptl ~ age + smoke, poisson, births, control = tight)
cox <- coxph(Surv(time, death) ~ age + sex, lung, control = exact)
answers[["tidy logistic"]] <- tidy_of(logit, confint.default(logit))  # broom's own are of the profile
answers[["tidy poisson"]] <- tidy_of(poisson, confint.default(poisson))
wald <- broom::tidy(cox, exponentiate = TRUE, conf.int = TRUE)
answers[["tidy cox"]] <- tidy_of(cox, log(cbind(wald$conf.low, wald$conf.high)))

cat(jsonlite::toJSON(answers, digits = I(12), auto_unbox = TRUE, na = "null"), "\n")
