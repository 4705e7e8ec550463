# Replicates of a ratio of means and the intervals of boot.ci on them; writes boot_replicates.csv and boot_ci.csv.
#   Rscript boot_ci.R
library(boot)
set.seed(5)
x <- round(rgamma(20, 2, 0.2), 2); u <- round(x * rgamma(20, 4, 2), 2)
ratio <- function(d, i) {
  u <- d$u[i]; x <- d$x[i]; r <- mean(u) / mean(x)
  c(r, sum((u - r * x)^2) / (length(x) * mean(x))^2)
}
b <- boot(data.frame(x, u), ratio, R = 499)
write.csv(data.frame(t = c(b$t0[1], b$t[, 1]), variance = c(b$t0[2], b$t[, 2])), "boot_replicates.csv", row.names = FALSE)
rows <- NULL
for (level in c(0.90, 0.95, 0.937)) {
  ci <- boot.ci(b, conf = level, type = c("perc", "basic", "stud"))
  for (kind in c("percent", "basic", "student")) rows <- rbind(rows, data.frame(level, kind, lower = ci[[kind]][4], upper = ci[[kind]][5]))
}
options(digits = 17)
write.csv(rows, "boot_ci.csv", row.names = FALSE)
cat(R.version.string, as.character(packageVersion("boot")), "\n")
