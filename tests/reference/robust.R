# Makes data/r_robust.json: Rscript robust.R data
suppressMessages({library(sandwich); library(jsonlite)})
here <- commandArgs(TRUE)[1]
cars <- read.csv(file.path(here, "s09_linear_mtcars.csv"))
m <- lm(mpg ~ wt + hp + qsec, cars)
n <- nrow(cars); firm <- (seq_len(n) - 1) %/% 4; year <- (seq_len(n) - 1) %% 5
cl <- function(...) unname(vcovCL(m, ...))
hacs <- function(kernel, bw, ...) unname(kernHAC(m, kernel = kernel, bw = bw, prewhite = FALSE, adjust = FALSE, ...))
chosen <- function(kernel) bwNeweyWest(m, kernel = kernel, prewhite = FALSE)
out <- list(R = paste(R.version$major, R.version$minor, sep = "."), sandwich = as.character(packageVersion("sandwich")),
  recipe = "vcovCL, NeweyWest and kernHAC of the sandwich package on lm(mpg ~ wt + hp + qsec, s09); rows in file order as time; firm = row %/% 4, year = row %% 5 with rows from 0",
  coef = unname(coef(m)),
  clusters = list(CR0 = cl(cluster = firm, type = "HC0", cadjust = FALSE), CR1 = cl(cluster = firm, type = "HC0"), CR1S = cl(cluster = firm, type = "HC1"),
    CR2 = cl(cluster = firm, type = "HC2"), CR3 = cl(cluster = firm, type = "HC3"),
    two_way_CR0 = cl(cluster = data.frame(firm, year), type = "HC0", cadjust = FALSE), two_way_CR1 = cl(cluster = data.frame(firm, year), type = "HC0")),
  lags = list(`0` = unname(NeweyWest(m, lag = 0, prewhite = FALSE, adjust = FALSE)), `3` = unname(NeweyWest(m, lag = 3, prewhite = FALSE, adjust = FALSE)),
    `6` = unname(NeweyWest(m, lag = 6, prewhite = FALSE, adjust = FALSE))),
  automatic = list(bandwidth = list(bartlett = chosen("Bartlett"), parzen = chosen("Parzen"), `quadratic-spectral` = chosen("Quadratic Spectral")),
    bartlett = unname(NeweyWest(m, lag = NULL, prewhite = FALSE, adjust = FALSE)),
    parzen = hacs("Parzen", bwNeweyWest), `quadratic-spectral` = hacs("Quadratic Spectral", bwNeweyWest, tol = 1e-12)),
  fixed = list(bandwidth = 2.7, parzen = hacs("Parzen", 2.7), `quadratic-spectral` = hacs("Quadratic Spectral", 2.7, tol = 1e-12), bartlett = hacs("Bartlett", 2.7)),
  default = list(andrews = bwAndrews(m, prewhite = FALSE), vcov = unname(kernHAC(m, prewhite = FALSE))))
write_json(out, file.path(here, "r_robust.json"), digits = 16, auto_unbox = TRUE)
