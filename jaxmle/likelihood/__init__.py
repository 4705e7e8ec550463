"""Log-likelihoods: the contract, combinators, declared regressions, and the pass that sums over
rows.
"""
