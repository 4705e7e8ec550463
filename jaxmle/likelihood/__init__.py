"""Log-likelihoods: the contract, combinators, the declared form, and the accumulating pass."""
