"""A keyword that a public function does not have, answered with the one of ours that is meant.

Those who come from SciPy, statsmodels, lifelines, R, Stata, scikit-learn or PyTorch write their own
words for options. ``WORDS_FOR_KEYWORD`` lists these words for each keyword of ours; ``NO_KEYWORD``
says what to do where no function of ours has such an option.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# For each keyword of ours, how it is written, and what other software calls it.
WORDS_FOR_KEYWORD: dict[str, tuple[str, str]] = {
    "params0": (
        "params0={'mu': 0.0, 'sigma': 1.0}, the start values",
        "x0 p0 theta0 beta0 start starts init inits initial params param start_params "
        "initial_params initial_values init_params starting_values startvals guess "
        "initial_guess parameters",
    ),
    "data": (
        "data=…: a table, or all arrays as one tree, {'x': x, 'y': y}",
        "args df dat table frame dataset observations X x Y y endog exog obs sample",
    ),
    "datasets": (
        "datasets=[data, data, …], or arrays with one more leading axis",
        "data args df X x Y y batch list_of_data",
    ),
    "formula": ("formula='y ~ x'", "fml model_formula"),
    "constraints": (
        "constraints={'sigma': jaxmle.positive}, with jaxmle.interval(0, 1) for two bounds",
        "constraint bounds bound limits limit lb ub lower upper transform transforms bijectors "
        "domain param_bounds",
    ),
    "vcov": (
        "vcov='HC1', or another of 'observed', 'expected', 'opg', 'cluster', 'hac'",
        "cov_type cov_kwds cov cov_estimator covariance covariance_type robust use_robust "
        "se se_type vce stderr std_errors standard_errors hessian_type heteroskedasticity",
    ),
    "clusters": (
        "clusters=labels, one label for each row",
        "cluster cluster_var cluster_col cluster_id cluster_ids groups group id subject",
    ),
    "weights": (
        "weights=jaxmle.frequency(w), for rows that stand for w rows each, or jaxmle.sampling(w)",
        "weight w wt wts freq_weights frequency_weights var_weights prob_weights sample_weight "
        "sample_weights weights_col fweight fweights pweight pweights aweights iweights "
        "case_weights",
    ),
    "solver": (
        "solver=jaxmle.solvers.LBFGS(), or an optax transformation",
        "method optimizer optimiser algorithm alg opt optim minimizer fit_method",
    ),
    "optimizer": (
        "optimizer=optax.adam(1e-2)",
        "optimiser lr learning_rate learn_rate solver method opt algorithm optim",
    ),
    "max_steps": (
        "max_steps=…, the most evaluations of the likelihood",
        "maxiter max_iter maxit maxfun maxfev maxeval iterations n_iter niter num_steps "
        "nsteps steps num_iterations max_iterations max_evaluations",
    ),
    "epochs": ("epochs=…", "n_epochs num_epochs maxiter max_iter n_iter niter num_steps steps"),
    "batch_size": ("batch_size=…", "batch minibatch minibatch_size chunk_size block_rows"),
    "block_rows": ("block_rows=…", "batch_size block_size chunk_size chunksize chunks"),
    "dtype": ("dtype='float32'", "precision float_type x64 float64 double type"),
    "progress": (
        "progress=True for a line at each step, progress=False for none",
        "verbose verbosity disp display trace print_level show_progress progress_bar quiet silent "
        "callback callbacks iprint verb",
    ),
    "checkpoint": ("checkpoint='folder'", "checkpoint_dir checkpoint_path resume save_path"),
    "by": ("by='column'", "groups group groupby group_by group_col over strata stratify facet"),
    "missing": (
        "missing='drop'",
        "na_action dropna drop_na nan_policy na nan hasconst na_rm missing_values",
    ),
    "engine": (
        "engine=…, any concurrent.futures.Executor",
        "pool client executor scheduler backend",
    ),
    "key": (
        "key=jax.random.key(0)",
        "seed random_state random_seed rng generator prng prng_key random_key",
    ),
    "replicates": (
        "replicates=…",
        "n_boot nboot n_bootstrap n_bootstraps B R reps n_reps n_rep num_samples n_samples "
        "n_resamples resamples nsim n_sim draws iterations n_iter number samples",
    ),
    "draws": ("draws=…", "n_draws samples n_samples num_samples nsim replicates size"),
    "number": ("number=…, how many starts", "n n_starts nstarts num_starts restarts n_init"),
    "level": (
        "level=0.95, the coverage of the intervals",
        "alpha ci conf conf_level confidence confidence_level coverage prob cl signif "
        "percent",
    ),
    "statistic": ("statistic=lambda fit: …", "func function stat fun estimator"),
    "which": ("which=['mu'], the names of parameters", "name names param params parameter parm"),
    "names": ("names=…", "labels model_names titles headers"),
    "restriction": ("restriction='age = 0'", "r_matrix hypothesis hypotheses constraints R L test"),
    "value": ("value=…", "q_matrix q rhs null null_value r"),
    "scale": ("scale='log'", "transform link transformation"),
    "on_bound": ("on_bound=…, how many parameters are on a bound under H0", "boundary"),
    "in_axes": ("in_axes=…", "axis axes batch_axis"),
    "exponentiate": ("exponentiate=True", "exp eform transform odds_ratios hr or_ irr"),
}  # fmt: skip

# What no function of ours has as a keyword, or not the one that was called.
NO_KEYWORD: dict[str, str] = {
    "tol ftol gtol xtol atol rtol eps tolerance epsilon reltol abstol pgtol xatol fatol factr": (
        "there is no tolerance to choose: a search ends where rounding hides what is left, and "
        "fit.status says how it ended"
    ),
    "jac gradient grad fprime score hess hessian hessp fhess value_and_grad gr": (
        "derivatives are made by jax from the likelihood, none are given"
    ),
    "family link dist distribution": (
        "the model chooses the distribution: jaxmle.models.poisson(), jaxmle.models.logistic(), …"
    ),
    "offset exposure": (
        "it is an option of the model: jaxmle.models.poisson(exposure='t'), with a leaf 't' in data"
    ),
    "formula fml": "write jaxmle.from_formula('y ~ x', table).fit(model)",
    "by groups group groupby": "one fit for each group is jaxmle.fit_groups(…, by='column')",
    "penalty l1 l2 reg regularization regularizer penalizer lambda_ lamb prior priors": (
        "write jaxmle.penalize(loglik, jaxmle.ridge(0.1)) for the likelihood"
    ),
    "fix fixed fixed_params hold constant frozen static": (
        "write jaxmle.fix(loglik, {'sigma': 1.0}) for the likelihood"
    ),
    "subset query where mask filter": "select the rows first",
    "alpha ci conf_level confidence conf level": (
        "intervals are asked of the result: fit.conf_int(level=0.95)"
    ),
    "seed random_state rng key random_seed": "nothing in it is random, so no seed is needed",
    "n_jobs njobs num_workers workers n_cores cores threads": "all cores are used as it is",
    "lr learning_rate momentum epochs n_epochs batch_size": (
        "mini-batches are what jaxmle.fit_stochastic(…) fits"
    ),
    "options opts control settings config kwargs method_options fit_kwargs minimizer_kwargs": (
        "each option is a keyword of its own"
    ),
    "cov_type cov robust se vce cluster clusters cov_kwds cov_p": (
        "the covariance is chosen in the fit: jaxmle.fit(…, vcov='HC1')"
    ),
    "weights weight sample_weight freq_weights": (
        "weights are given to the fit: jaxmle.fit(…, weights=jaxmle.frequency(w))"
    ),
    "bounds constraints lower upper": (
        "bounds are given to the fit: jaxmle.fit(…, constraints={'sigma': jaxmle.positive})"
    ),
    "df ddof dof": "the degrees of freedom follow from the fits",
    "device backend platform gpu": "jax chooses the device: with jax.default_device(…): …",
    "inplace copy": "nothing is changed in place: the result is a new record",
}
HINT_FOR_WORD = {word: hint for words, hint in NO_KEYWORD.items() for word in words.split()}
LISTED = 12  # keywords of a function that a message names


def keyword_hint(name: str, known: Collection[str]) -> str:
    """What to write for a keyword that a function does not have.

    >>> keyword_hint("maxiter", ["loglik", "max_steps"])
    'write max_steps=…, the most evaluations of the likelihood'
    >>> keyword_hint("progres", ["loglik", "progress"])
    'did you mean progress?'
    """
    near = get_close_matches(name, known, n=1, cutoff=0.8)
    if near and (near[0].startswith(name) or name.startswith(near[0][:-1])):
        return f"did you mean {near[0]}?"
    for keyword, (how, words) in WORDS_FOR_KEYWORD.items():
        if keyword in known and name in words.split():
            return f"write {how}"
    if name in HINT_FOR_WORD:
        return HINT_FOR_WORD[name]
    if near:
        return f"did you mean {near[0]}?"
    listed = list(known)
    more = ", …" if len(listed) > LISTED else ""
    return f"it takes {', '.join(listed[:LISTED])}{more}"


def missing_name(module: str, name: str, known: Collection[str], hint: str = "") -> AttributeError:
    """The error for a name that a module or record of ours does not have.

    >>> missing_name("jaxmle.families", "Normal", ["normal", "gamma"]).args[0]
    "jaxmle.families has no 'Normal': did you mean normal?"
    """
    near = [name.lower()] if name.lower() in known else get_close_matches(name, known, n=1)
    words = hint or (f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}")
    return AttributeError(f"{module} has no {name!r}" + ("" if name[:1] == "_" else f": {words}"))


def with_keyword_hints(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function: a keyword that it does not have is answered with the one that is
    meant, and too many arguments by position with how data and options are given.

    >>> @with_keyword_hints
    ... def search(loglik, *, max_steps=10): ...
    >>> search(print, maxiter=3)
    Traceback (most recent call last):
    TypeError: search() has no keyword 'maxiter': write max_steps=…, the most evaluations of the
    likelihood
    """

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        try:
            return function(*args, **options)
        except TypeError as error:
            trace = error.__traceback__
            if trace is not None and trace.tb_next is not None:  # raised inside the function
                raise
            raise TypeError(_sentence(function, str(error), args)) from None

    return call


def _sentence(function: Callable[P, R], text: str, args: tuple[object, ...] = ()) -> str:
    """The sentence for a call that does not match the signature of a function."""
    parameters = inspect.signature(function).parameters.values()
    kinds = {parameter.name: parameter.kind for parameter in parameters if parameter.name != "self"}
    name = function.__name__
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    if unknown is not None:
        return f"{name}() has no keyword {unknown[1]!r}: {keyword_hint(unknown[1], kinds)}"
    first = next(iter(kinds), "")
    if first == "loglik" and args and hasattr(args[0], "loglik"):  # the result of a fit
        places = [word for word in kinds if kinds[word] is not inspect.Parameter.KEYWORD_ONLY]
        return f"{name}() takes the log-likelihood before the fit: {name}({', '.join(places)})"
    if list(kinds)[:1] == ["loglik"] and len(args) > 1 and "data" not in kinds:
        return f"{name}(loglik) is a function of parameters and data: {name}(loglik)(params, data)"
    missing = re.findall(r"'(\w+)'", text) if "missing" in text else []
    if missing:
        how = [WORDS_FOR_KEYWORD[word][0] for word in missing if word in WORDS_FOR_KEYWORD]
        write = f": write {how[0]}" if how else ""
        return f"{name}() needs {' and '.join(missing)}{write}"
    if "positional argument" not in text or "given" not in text:
        return text
    places = [place for place, kind in kinds.items() if kind is kind.POSITIONAL_OR_KEYWORD]
    options = [option for option, kind in kinds.items() if kind is kind.KEYWORD_ONLY]
    tree = ", with data={'x': x, 'y': y} for several arrays" if "data" in places else ""
    given = f"; options are given by name, such as {options[0]}=…" if options else ""
    return f"{name}() takes {', '.join(places) or 'nothing'} by position{tree}{given}"
