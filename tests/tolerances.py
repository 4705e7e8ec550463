"""Tolerances that many tests share, each with its reason. A figure of one test alone stands in that test, with its reason beside it."""

# ---------------------------------------------------------------- the contract of a CONVERGED fit

# Of a standard error, between an estimate and the maximum: far below what any use of an estimate can tell.
ESTIMATE_IN_SE = 1e-6
# Relative, of a standard error: its derivative by an estimate that is ESTIMATE_IN_SE off is of the order of that.
STDERR = 1e-6
# Relative to |ℓ|: at the maximum ℓ is flat, so that only the rounding of the sum counts; the files print ten digits and more.
LOGLIK = 1e-9
# Of 1, for a covariance over the product of its two standard errors, each of which may be off by STDERR.
CORRELATION = 2 * STDERR
# In standard errors, of an end of a 95 % interval: the estimate and 1.96 standard errors, with the slope of the user's scale.
INTERVAL_END_IN_SE = 4 * ESTIMATE_IN_SE
# Absolute, of a log-likelihood whose supremum lies at infinity: a walk towards it stops where less than this is to be gained.
SUPREMUM = 1e-6

# ---------------------------------------------------------------- numbers of other software

# Relative, of a robust covariance: both programs compute one sum over rows, whose scores take the error of the estimate to first order.
# Ten times stricter than STDERR, since the two estimates agree better than ESTIMATE_IN_SE asks.
ROBUST_COVARIANCE = 1e-7
# Relative, of a sum of squares from parameters that NIST certifies to eleven digits: two are lost where residuals are small.
CERTIFIED_SUM = 1e-9

# ---------------------------------------------------------------- rounding in float64, ε = 2.2e-16

# Relative, of a sum of up to some thousand terms of one size, in another order: n ε is the worst, √n ε the usual.
ROUNDING_OF_A_SUM = 1e-12
# Relative, of a number by two roads that differ by a few solves with a matrix of condition up to 1e4 or so: cond · n ε.
ROUNDING_OF_A_SOLVE = 1e-9
