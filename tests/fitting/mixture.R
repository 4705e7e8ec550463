# The maxima that mclust and mixtools reach from the starts of test_em.py. Run once, from this folder:
#   Rscript mixture.R > data/mixture.csv
# It reads data/mixture_wine.csv and data/mixture_faithful.csv, written by
#   python -c "import test_em; test_em.write_r_data()"
suppressMessages({library(mclust); library(mixtools)})
tight <- emControl(eps = 0, tol = c(1e-14, 1e-14), itmax = c(100000, 100000))
put <- function(source, name, ll, n) cat(source, name, format(ll, digits = 15), n, sep = ",", fill = TRUE)
cat("source,case,loglik,n", fill = TRUE)
wine <- as.matrix(read.csv("data/mixture_wine.csv"))
faithful_ <- as.matrix(read.csv("data/mixture_faithful.csv"))
cases <- list(
  iris = list(y = as.matrix(iris[, 1:4]), z = unmap(as.integer(iris$Species))),
  wine = list(y = wine[, 1:3], z = unmap(wine[, 4])))
for (name in names(cases)) for (model in c("VVV", "EEE", "VVI", "VII")) {
  case <- cases[[name]]
  found <- me(data = case$y, modelName = model, z = case$z, control = tight)
  put(paste0("mclust-", packageVersion("mclust")), paste(name, model, sep = "-"), found$loglik, nrow(case$y))
}
y <- faithful_[, 1]
found <- me(data = y, modelName = "V", z = unmap(as.integer(y > 3) + 1L), control = tight)
put(paste0("mclust-", packageVersion("mclust")), "faithful-V", found$loglik, length(y))
# capture.output: normalmixEM prints its number of iterations
invisible(capture.output(found <- normalmixEM(y, lambda = c(mean(y <= 3), mean(y > 3)), mu = c(mean(y[y <= 3]), mean(y[y > 3])),
                     sigma = c(sd(y[y <= 3]), sd(y[y > 3])), epsilon = 1e-13, maxit = 100000, verb = FALSE)))
put(paste0("mixtools-", packageVersion("mixtools")), "faithful-V", found$loglik, length(y))
