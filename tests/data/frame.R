# R's numbers for test_frame.py: Rscript frame.R > frame_reference.csv, from tests/data. Needs sandwich, MASS and survival.
suppressMessages({library(sandwich); library(MASS); library(survival)})
births <- read.csv("../../jaxmle/datasets/birthwt.csv")
births$race <- ifelse(births$black == 1, "black", ifelse(births$other == 1, "other", "white"))
births$site <- (seq_len(nrow(births)) - 1) %% 17
births$age[c(4, 51)] <- NA
births$race[c(4, 11, 12)] <- NA
births$site[21] <- NA
births$stress <- cut(births$lwt, c(0, 110, 130, 500), labels = c("low", "mid", "high"), right = TRUE)
lung <- read.csv("../../jaxmle/datasets/lung.csv")
lung$ecog[c(1, 2)] <- NA
lung$start <- (seq_len(nrow(lung)) - 1) %% 5

row <- function(model, estimate, se) cat(sprintf("%s,%d,%.15g,%.15g\n", model, seq_along(estimate) - 1L, estimate, se), sep = "")
cat("model,entry,estimate,std_error\n")
control <- glm.control(epsilon = 1e-15, maxit = 100)

used <- births[!is.na(births$site), ]  # glm does not know the clusters
m <- glm(ptl ~ age * race + smoke + offset(log(lwt)), poisson, used, control = control)
row("poisson", coef(m), sqrt(diag(vcovCL(m, ~ site, type = "HC0", cadjust = FALSE))))
new <- data.frame(age = c(20, 30), race = c("other", "black"), smoke = c(1, 0), lwt = c(120, 150))
row("poisson_predict", predict(m, new, type = "response"), 0)

m <- glm(cbind(low, 1 - low) ~ relevel(factor(race), "white") + factor(ht) + I(age^2), binomial, births, weights = ptl + 1, control = control)
row("binomial", coef(m), sqrt(diag(vcov(m))))

m <- polr(stress ~ race + smoke, births, Hess = TRUE, control = list(reltol = 1e-14))
row("ordinal", c(coef(m), m$zeta), 0)

m <- survreg(Surv(time, death) ~ age + factor(ecog), lung, dist = "weibull", control = survreg.control(rel.tolerance = 1e-14))
row("weibull", coef(m), sqrt(diag(vcov(m)))[1:length(coef(m))])

m <- coxph(Surv(start, time, death) ~ age + factor(ecog), lung, control = coxph.control(eps = 1e-13, toler.chol = 1e-14))
row("cox", coef(m), sqrt(diag(vcov(m))))
