"""Every public door refuses bad input in its own words: what came, what was expected, before anything is compiled for it."""

import functools
import re
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

import jaxmle as jm
from jaxmle.inference.delta import delta
from jaxmle.inference.diagnostics.disagreement import disagreement
from jaxmle.inference.diagnostics.influence import influence
from jaxmle.inference.hypotheses.hauck_donner import hauck_donner
from jaxmle.inference.hypotheses.satterthwaite import satterthwaite
from jaxmle.inference.linting.lint import lint
from jaxmle.inference.profiles.contour import contour
from jaxmle.inference.profiles.profile import profile
from jaxmle.inference.profiles.simultaneous import simultaneous
from jaxmle.inference.resampling.bootstrap import bootstrap
from jaxmle.inference.resampling.calibrate import calibrate
from jaxmle.inference.resampling.jackknife import jackknife
from tests.likelihoods import normal_regression_kernel
from tests.test_bad_input import DATA, POSITIVE, START, N, X, Y


def data(**changed):
    return DATA | changed


@functools.cache
def made():
    """Sound records of one model, made once: what the wrong calls below are wrong about."""
    loglik = normal_regression_kernel
    fit = jm.fit(loglik, START, DATA, constraints=POSITIVE)
    small = jm.fit(jm.fix(loglik, {"beta[1]": 0.0}), START, DATA, constraints=POSITIVE)
    weighted = jm.fit(loglik, START, DATA, constraints=POSITIVE, weights=FOUR)
    batch = jm.fit_batch(
        loglik, START, BATCH, constraints=POSITIVE, params_axis=None, progress=False
    )
    found = profile(loglik, fit, DATA, "sigma", points=3)
    return SimpleNamespace(
        loglik=loglik, fit=fit, small=small, weighted=weighted, batch=batch, profile=found
    )


FOUR = jm.frequency(np.full(N, 4.0))
BATCH = {"y": np.stack([Y, Y + 1, 2 * Y]), "x": np.stack([X] * 3)}
TABLE = {"y": Y, "a": np.arange(N) / 2, "c": Y**2, "g": np.array(list("aabbcc"))}
MASKED = np.ma.array(np.ones(N), mask=[True] + [False] * (N - 1))
LABELS = np.array(["a", "b", None, "a", "b", "a"], dtype=object)
DAYS = np.array(["2020-01-01"] * (N - 1) + ["NaT"], dtype="datetime64[D]")
COUNTS = {"y": np.array([0.0, 1, 0, 2, 1, 3]), "x": X}


def sampler(key, params, data):
    return {**data, "y": data["x"] @ params["beta"] + jax.random.normal(key, data["y"].shape)}


def doubled(values):
    """Numbers in a generator, which is read once and has no length."""
    return (2 * value for value in values)


def fitted(**options):
    return jm.fit(made().loglik, START, DATA, **({"constraints": POSITIVE} | options))


def batched(**options):
    arguments = {"params0": START, "datasets": BATCH, "constraints": POSITIVE, "params_axis": None}
    return jm.fit_batch(made().loglik, **(arguments | {"progress": False} | options))


def asked(function, *arguments, fit=None, data=None, **options):
    """A function of (loglik, fit, data, …) that asks a record again."""
    fit, data = made().fit if fit is None else fit, DATA if data is None else data
    return function(made().loglik, fit, data, *arguments, **options)


def of_formula(formula="y ~ a", **options):
    return jm.from_formula(formula, TABLE, **options)


def mixed(data, **options):
    return jm.em(jm.gaussian_mixture(2), data=data, **({"starts": 2} | options))


def stochastic(**options):
    arguments = {"optimizer": optax.adam(0.1), "batch_size": 2, "epochs": 1, "progress": False}
    return jm.fit_stochastic(made().loglik, START, DATA, **(arguments | options))


V, T = ValueError, TypeError
ASYMMETRIC = np.eye(3) + np.array([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]])
INDEFINITE = np.array([[1.0, 2, 0], [2, 1, 0], [0, 0, 1]])
HOLED = np.array([[1.0, np.nan, 0], [np.nan, 1, 0], [0, 0, 1]])

# name: (error, words of its message, the call)
DOORS = {
    # ------------------------------------------------------------ fit: options
    "fit_max_steps_string": (V, ["max_steps", "'10'"], lambda: fitted(max_steps="10")),
    "fit_max_steps_beyond_int32": (V, ["max_steps", "2147483647"], lambda: fitted(max_steps=10**30)),
    "fit_progress_word": (T, ["progress", "'yes'"], lambda: fitted(progress="yes")),
    "fit_progress_array": (T, ["progress", "ndarray"], lambda: fitted(progress=np.ones(2))),
    "fit_block_rows_true": (V, ["block_rows", "True"], lambda: fitted(block_rows=True)),
    "fit_block_rows_generator": (V, ["block_rows"], lambda: fitted(block_rows=doubled([1]))),
    "fit_vcov_array": (V, ["vcov", "ndarray", "HC0"], lambda: fitted(vcov=np.eye(3))),
    "fit_vcov_frame": (V, ["vcov", "observed"], lambda: fitted(vcov=Y[:0])),
    "fit_dtype_tensor": (V, ["dtype", "float64"], lambda: fitted(dtype=SimpleNamespace(dtype="f4"))),
    "fit_dtype_class": (V, ["dtype", "float64"], lambda: fitted(dtype=int)),
    "fit_constraints_word": (T, ["constraints", "'positive'"], lambda: fitted(constraints="positive")),
    "fit_constraints_set": (T, ["constraints", "sigma"], lambda: fitted(constraints={jm.positive})),
    "fit_constraints_list": (T, ["constraints", "sigma"], lambda: fitted(constraints=[jm.positive])),
    "fit_loglik_class": (T, ["loglik", "class dict"], lambda: jm.fit(dict, START, DATA)),
    "fit_loglik_maker": (T, ["logistic", r"write logistic\(…\)"], lambda: jm.fit(jm.models.logistic, START, DATA)),
    "fit_two_parameters_of_one_name": (V, ["a\\[0\\]", "rename"], lambda: jm.fit(made().loglik, {"a[0]": 1.0, "a": np.zeros(2)}, DATA)),
    "fit_two_parameters_of_one_dotted_name": (V, ["a.b", "rename"], lambda: jm.fit(made().loglik, {"a.b": 1.0, "a": {"b": 1.0}}, DATA)),
    "fit_data_none_for_a_model": (T, ["logistic", "NoneType|None"], lambda: jm.fit(jm.models.logistic())),
    "fit_data_list_for_a_model": (T, ["poisson", "dictionary"], lambda: jm.fit(jm.models.poisson(), data=[Y, X])),
    "fit_hac_lags_as_long_as_the_data": (V, ["lags=6", "6 rows"], lambda: fitted(vcov=jm.hac(lags=6))),
    "fit_hac_bandwidth_beyond_the_data": (V, ["bandwidth 100", "6 rows"], lambda: fitted(vcov=jm.hac("parzen", bandwidth=100))),
    # ------------------------------------------------------------ weights and clusters
    "weights_masked": (T, ["mask"], lambda: jm.frequency(MASKED)),
    "weights_none": (T, ["weights", "None"], lambda: jm.sampling(None)),
    "weights_of_weights": (T, ["weights", "Weights"], lambda: jm.sampling(FOUR)),
    "weights_of_a_word": (T, ["weights", "'ab'"], lambda: jm.weight(made().loglik, jm.frequency("ab"))),
    "weights_of_a_word_in_a_batch": (T, ["weights", "'ab'"], lambda: jm.fit_batch(made().loglik, START, BATCH, weights=jm.frequency("ab"))),
    "weights_of_a_word_in_em": (T, ["weights", "'ab'"], lambda: mixed(Y, weights=jm.frequency("ab"))),
    "weights_of_a_word_again": (T, ["weights", "'ab'"], lambda: profile(made().loglik, made().weighted, DATA, "sigma", weights=jm.frequency("ab"))),
    "weights_of_a_column_not_there": (V, ["column", "'ab'"], lambda: of_formula(weights=jm.frequency("ab"))),
    "weights_of_words_in_a_column": (T, ["weights", "'g'", "numbers"], lambda: of_formula(weights=jm.frequency("g"))),
    "weights_of_words": (T, ["weights", "dtype"], lambda: jm.sampling(["a", "b"])),
    "weights_dict": (T, ["weights", "dict"], lambda: jm.frequency({"w": 1})),
    "weights_infinite": (V, ["weights", "finite", "row 1"], lambda: fitted(weights=jm.sampling([1, np.inf, 1, 1, 1, 1]))),
    "weights_complex": (T, ["weights", "numbers"], lambda: fitted(weights=jm.sampling(np.ones(N) + 0j))),
    "weights_column_vector": (V, ["weights", r"\(6, 1\)"], lambda: fitted(weights=jm.sampling(np.ones((N, 1))))),
    "clusters_none_label": (V, ["None in row 2"], lambda: fitted(clusters=LABELS)),
    "clusters_none_in_a_list": (V, ["None in row 1"], lambda: fitted(clusters=["a", None, "b", "b", "a", "b"])),
    "clusters_nan_in_a_list_of_words": (V, ["NaN in row 1"], lambda: fitted(clusters=["a", np.nan, "b", "b", "a", "b"])),
    "clusters_nat": (V, ["NaT in row 5"], lambda: fitted(clusters=DAYS)),
    "clusters_masked": (T, ["mask"], lambda: fitted(clusters=MASKED)),
    "clusters_of_lists": (T, ["clusters", "numbers or strings"], lambda: fitted(clusters=np.array([[1], [2], [3], [4], [5], {}], dtype=object))),
    "clusters_missing_in_the_second_way": (V, ["None in row 2"], lambda: fitted(clusters=(np.arange(N), LABELS))),
    # ------------------------------------------------------------ fit_batch, fit_groups
    "batch_checkpoint_number": (T, ["checkpoint", "path", "3"], lambda: batched(checkpoint=3)),
    "batch_checkpoint_empty": (T, ["checkpoint", "path"], lambda: batched(checkpoint="")),
    "batch_checkpoint_bytes": (T, ["checkpoint", "path"], lambda: batched(checkpoint=b"x")),
    "batch_block_fraction": (V, ["block", "2.5"], lambda: batched(block=2.5)),
    "batch_block_none_of_it": (V, ["block", "positive"], lambda: batched(block=0)),
    "batch_in_axes_word": (T, ["in_axes", "'x'"], lambda: batched(in_axes="x")),
    "batch_in_axes_array": (T, ["in_axes", "ndarray"], lambda: batched(in_axes=np.zeros(2))),
    "batch_in_axes_of_another_tree": (V, ["in_axes", "tree"], lambda: batched(in_axes={"y": 0})),
    "batch_in_axes_beyond": (V, ["axis 5", r"\(3, 6, 2\)"], lambda: batched(in_axes=5)),
    "batch_in_axes_true": (T, ["in_axes", "True"], lambda: batched(in_axes=True)),
    "batch_params_axis_word": (V, ["params_axis", "'first'"], lambda: batched(params_axis="first")),
    "batch_params_axis_array": (V, ["params_axis", "ndarray"], lambda: batched(params_axis=np.zeros(2))),
    "batch_widths_differ": (V, ["widths", r"\(6, 2\)", r"\(6, 3\)"], lambda: batched(datasets=[DATA, data(x=np.ones((N, 3)))])),
    "batch_keys_differ": (V, ["datasets\\[1\\]|tree|structure"], lambda: batched(datasets=[DATA, {"y": Y}])),
    "batch_of_numbers": (T, ["list of numbers"], lambda: batched(datasets=[1.0, 2.0])),
    "batch_of_nothing": (V, ["empty list"], lambda: batched(datasets=[])),
    "batch_masked_member": (T, ["mask"], lambda: batched(datasets=[DATA, data(y=MASKED)])),
    "batch_masked_clusters": (T, ["mask"], lambda: batched(clusters=MASKED)),
    "batch_weights_masked": (T, ["mask"], lambda: batched(weights=jm.sampling(MASKED))),
    "batch_hac_beyond": (V, ["lags=9", "6 rows"], lambda: batched(vcov=jm.hac(lags=9))),
    "groups_keys_of_two_kinds": (T, ["mixes numbers and strings", "row 1"], lambda: jm.fit_groups(made().loglik, START, DATA, by=[1, "a", 1, 1, "a", 1])),
    "groups_key_none": (V, ["None in row 2"], lambda: jm.fit_groups(made().loglik, START, DATA, by=LABELS)),
    "groups_keys_of_days": (T, ["dates"], lambda: jm.fit_groups(made().loglik, START, DATA, by=DAYS)),
    "groups_keys_masked": (T, ["mask"], lambda: jm.fit_groups(made().loglik, START, DATA, by=MASKED)),
    "groups_keys_short": (V, ["6 rows", "got 2"], lambda: jm.fit_groups(made().loglik, START, DATA, by=[1, 2])),
    "groups_formula_number": (T, ["formula", "3"], lambda: jm.fit_groups(jm.models.normal(), None, TABLE, by="g", formula=3)),
    "groups_missing_word": (V, ["missing", "'never'"], lambda: jm.fit_groups(made().loglik, START, DATA, by=[1] * N, missing="never")),
    "groups_no_such_key": (KeyError, ["no group", "near"], lambda: jm.fit_groups(made().loglik, START, DATA, by=[1, 1, 1, 2, 2, 2], progress=False, constraints=POSITIVE)[7]),
    # ------------------------------------------------------------ multistart, em, fit_stochastic
    "multistart_number_zero": (V, ["number", "0"], lambda: jm.multistart(made().loglik, START, DATA, number=0)),
    "multistart_number_word": (V, ["number", "'many'"], lambda: jm.multistart(made().loglik, START, DATA, number="many")),
    "multistart_key_fraction": (T, ["key", "2.5"], lambda: jm.multistart(made().loglik, START, DATA, key=2.5)),
    "multistart_key_beyond_64_bits": (V, ["key", "64 bits"], lambda: jm.multistart(made().loglik, START, DATA, key=10**30)),
    "multistart_starts_class": (T, ["starts", "class|type"], lambda: jm.multistart(made().loglik, int, DATA)),
    "multistart_symmetric_word": (T, ["symmetric", "groups"], lambda: jm.multistart(made().loglik, START, DATA, symmetric="beta")),
    "multistart_symmetric_0d": (T, ["symmetric", "groups"], lambda: jm.multistart(made().loglik, START, DATA, symmetric=np.array(3.0))),
    "multistart_params_axis": (V, ["params_axis", "1"], lambda: jm.multistart(made().loglik, START, DATA, params_axis=1)),
    "em_data_dict": (T, ["one array|scalar|dict|array"], lambda: mixed({"y": 1.0})),
    "em_data_dict_of_arrays": (V, ["one array", "dict"], lambda: mixed({"y": Y})),
    "em_data_infinite": (V, ["inf in row 2", "finite"], lambda: mixed(np.array([0.0, 1, np.inf, 2, 3]))),
    "em_data_none": (V, ["one array", "None"], lambda: mixed(None)),
    "em_no_starts": (V, ["starts", "0"], lambda: mixed(Y, starts=0)),
    "em_too_many_starts": (V, ["starts", "at most"], lambda: mixed(Y, starts=10**12)),
    "em_tolerance_word": (V, ["tolerance", "'small'"], lambda: mixed(Y, tolerance="small")),
    "em_floor_negative": (V, ["variance_floor", "-1"], lambda: mixed(Y, variance_floor=-1.0)),
    "em_start_empty": (V, ["start", "weights"], lambda: mixed(Y, start=[])),
    "em_weights_bare": (T, ["frequency"], lambda: mixed(Y, weights=np.ones(N))),
    "em_of_a_function": (T, ["gaussian_mixture", "function"], lambda: jm.em(made().loglik, data=Y)),
    "mixture_components_fraction": (V, ["components", "2.5"], lambda: jm.gaussian_mixture(2.5)),
    "mixture_covariance_array": (V, ["covariance", "spherical"], lambda: jm.gaussian_mixture(2, np.eye(2))),
    "mixture_of_a_number": (T, ["component", "3"], lambda: jm.mixture_of(3, 2)),
    "stochastic_batch_none": (V, ["batch_size", "0"], lambda: stochastic(batch_size=0)),
    "stochastic_epochs_fraction": (V, ["epochs", "1.5"], lambda: stochastic(epochs=1.5)),
    "stochastic_optimizer_word": (T, ["optimizer", "optax"], lambda: stochastic(optimizer="adam")),
    "stochastic_polish_list": (V, ["polish", "newton"], lambda: stochastic(polish=[])),
    "stochastic_polish_over_number": (T, ["polish_over", "3"], lambda: stochastic(polish="newton", polish_over=3)),
    "stochastic_checkpoint_number": (T, ["checkpoint", "3"], lambda: stochastic(checkpoint=3)),
    "stochastic_schedule_number": (T, ["schedule", "optax"], lambda: stochastic(schedule=0.1)),
    # ------------------------------------------------------------ what was fitted is what is asked again
    "profile_without_the_weights": (V, ["'frequency'", "give the weights"], lambda: asked(profile, fit=made().weighted)),
    "profile_of_other_weights": (V, ["not those of the fit", "weights"], lambda: asked(profile, fit=made().weighted, weights=jm.frequency(np.full(N, 3.0)))),
    "profile_of_weights_of_another_kind": (V, ["'frequency'", "'sampling'"], lambda: asked(profile, fit=made().weighted, weights=jm.sampling(np.full(N, 4.0)))),
    "profile_of_weights_that_the_fit_had_not": (V, ["leave the weights out"], lambda: asked(profile, weights=FOUR)),
    "profile_of_bare_weights": (T, ["frequency", "sampling"], lambda: asked(profile, fit=made().weighted, weights=np.ones(N))),
    "profile_of_other_data": (V, ["not those of the fit"], lambda: asked(profile, data=data(y=Y + 1))),
    "profile_level_percent": (V, ["level", "0.95"], lambda: asked(profile, level=95)),
    "profile_level_one": (V, ["level"], lambda: asked(profile, level=1.0)),
    "profile_level_nan": (V, ["level"], lambda: asked(profile, level=np.nan)),
    "profile_points_negative": (V, ["points", "-1"], lambda: asked(profile, points=-1)),
    "profile_points_without_end": (V, ["points", "at most"], lambda: asked(profile, points=10**9)),
    "profile_which_unknown": (V, ["no parameter is called 'tau'"], lambda: asked(profile, "tau")),
    "profile_which_class": (T, ["which"], lambda: asked(profile, int)),
    "profile_in_axes_of_one_fit": (V, ["in_axes", "single fit"], lambda: asked(profile, in_axes=-1)),
    "profile_of_no_fit": (T, ["result of fit", "'fit'"], lambda: asked(profile, fit="fit")),
    "profile_of_a_batch_and_one_data_set": (V, ["in_axes|axis|rows|members"], lambda: asked(profile, fit=made().batch)),
    "contour_without_the_weights": (V, ["'frequency'"], lambda: asked(contour, ("beta[0]", "sigma"), fit=made().weighted)),
    "contour_of_one_name": (T, ["pair"], lambda: asked(contour, "sigma")),
    "contour_of_one_parameter_twice": (V, ["one parameter"], lambda: asked(contour, ("sigma", "sigma"))),
    "contour_two_points": (V, ["points", "3 or more"], lambda: asked(contour, ("beta[0]", "sigma"), points=2)),
    "simultaneous_of_no_fit": (T, ["simultaneous", "None"], lambda: simultaneous(None)),
    "simultaneous_few_draws": (V, ["draws", "1000"], lambda: simultaneous(made().fit, draws=10)),
    "simultaneous_key_fraction": (T, ["key", "seed"], lambda: simultaneous(made().fit, key=0.5)),
    "simultaneous_method_array": (V, ["method", "bonferroni"], lambda: simultaneous(made().fit, method=Y)),
    "score_test_without_the_weights": (V, ["'frequency'"], lambda: asked(jm.score_test, fit=made().weighted)),
    "score_test_constraints_without_params": (V, ["constraints", "params"], lambda: asked(jm.score_test, fit=made().small, constraints=POSITIVE)),
    "score_test_of_the_full_fit": (V, ["free parameters"], lambda: asked(jm.score_test)),
    "tic_without_the_weights": (V, ["'frequency'"], lambda: asked(jm.tic, fit=made().weighted)),
    "tic_in_axes_of_no_members": (V, ["3 members", "axis"], lambda: asked(jm.tic, fit=made().batch, data=BATCH, in_axes=1)),
    "influence_without_the_weights": (V, ["'frequency'"], lambda: asked(influence, fit=made().weighted)),
    "influence_of_other_data": (V, ["not those of the fit"], lambda: asked(influence, data=data(y=Y[::-1].copy()))),
    "influence_in_axes_word": (T, ["in_axes"], lambda: asked(influence, fit=made().batch, data=BATCH, in_axes="x")),
    "bootstrap_without_the_weights": (V, ["'frequency'", "bootstrap"], lambda: asked(bootstrap, key=0, fit=made().weighted)),
    "bootstrap_of_other_weights": (V, ["weights", "not those of the fit"], lambda: asked(bootstrap, key=0, fit=made().weighted, weights=jm.frequency(np.ones(N)))),
    "bootstrap_replicates_one": (V, ["replicates", "2 or more"], lambda: asked(bootstrap, key=0, replicates=1)),
    "bootstrap_key_word": (T, ["key", "integer"], lambda: asked(bootstrap, key="x")),
    "bootstrap_kind_array": (V, ["kind", "pairs"], lambda: asked(bootstrap, key=0, kind=Y)),
    "bootstrap_statistic_class": (T, ["statistic", "function"], lambda: asked(bootstrap, key=0, statistic=int)),
    "bootstrap_of_a_batch": (V, ["single fit", "batch of 3"], lambda: asked(bootstrap, key=0, fit=made().batch)),
    "bootstrap_block_length_zero": (V, ["block_length"], lambda: asked(bootstrap, key=0, kind="block", block_length=0)),
    "bootstrap_sample_number": (T, ["sample", "function"], lambda: asked(bootstrap, key=0, kind="parametric", sample=3)),
    "jackknife_without_the_weights": (V, ["'frequency'"], lambda: asked(jackknife, fit=made().weighted)),
    "jackknife_progress_word": (T, ["progress"], lambda: asked(jackknife, progress="no")),
    "jackknife_missing_cluster": (V, ["None in row 2"], lambda: asked(jackknife, clusters=LABELS)),
    "infinitesimal_jackknife_of_no_fit": (T, ["result of fit"], lambda: asked(jm.infinitesimal_jackknife, fit=3)),
    "satterthwaite_of_no_fit": (T, ["satterthwaite", "3"], lambda: asked(satterthwaite, fit=3)),
    "satterthwaite_contrasts_words": (T, ["contrasts"], lambda: asked(satterthwaite, contrasts="x")),
    "hauck_donner_value_word": (V, ["value", "'x'"], lambda: asked(hauck_donner, value="x")),
    "disagreement_without_the_weights": (V, ["'frequency'"], lambda: asked(disagreement, fit=made().weighted)),
    "information_matrix_key_none": (T, ["key"], lambda: asked(jm.information_matrix_test, sampler, key=None)),
    "information_matrix_few": (V, ["replicates", "19"], lambda: asked(jm.information_matrix_test, sampler, key=0, replicates=3)),
    "vuong_correction_array": (V, ["correction", "none"], lambda: jm.vuong_test(made().loglik, made().fit, made().loglik, made().small, DATA, correction=Y)),
    "calibrate_tests_word": (V, ["tests", "wald"], lambda: asked(calibrate, sampler, key=0, tests=("rao",))),
    "calibrate_vcov_zero": (V, ["vcov", "observed"], lambda: asked(calibrate, sampler, key=0, vcov=0)),
    "calibrate_sample_class": (T, ["sample", "function"], lambda: asked(calibrate, int, key=0)),
    "calibrate_of_no_fit": (T, ["calibrate", "result of fit"], lambda: asked(calibrate, sampler, key=0, fit=3)),
    "profile_end_without_the_weights": (V, ["'frequency'"], lambda: jm.profile_end(made().loglik, made().weighted, made().profile, DATA, "sigma")),
    "weights_strings": (T, ["weights", "numbers", "<U1"], lambda: jm.sampling(np.array(list("abcabc")))),
    "profile_end_of_no_profile": (T, ["found", "profile"], lambda: jm.profile_end(made().loglik, made().fit, 3, DATA, "sigma")),
    "profile_end_side": (V, ["side", "'lower'"], lambda: jm.profile_end(made().loglik, made().fit, made().profile, DATA, "sigma", "left")),
    # ------------------------------------------------------------ tests and functions of records
    "delta_of_no_function": (T, ["g must be a function"], lambda: delta("beta", made().fit)),
    "delta_of_no_fit": (T, ["delta", "None"], lambda: delta(lambda p: p["sigma"], None)),
    "delta_of_words": (T, ["g must return"], lambda: delta(lambda p: "x", made().fit)),
    "delta_of_nothing": (V, ["no numbers"], lambda: delta(lambda p: {}, made().fit)),
    "delta_level_percent": (V, ["level", "0.95"], lambda: delta(lambda p: p["sigma"], made().fit).conf_int(90)),
    "wald_of_no_fit": (T, ["wald_test"], lambda: jm.wald_test(DATA, "sigma")),
    "wald_of_an_equation_of_nobody": (V, ["gamma"], lambda: jm.wald_test(made().fit, "gamma = 0")),
    "wald_of_a_short_matrix": (V, ["matrix", r"\(q, 3\)"], lambda: jm.wald_test(made().fit, np.eye(2))),
    "wald_of_none": (T, ["restriction", "None"], lambda: jm.wald_test(made().fit, None)),
    "wald_value_word": (T, ["value", "'x'"], lambda: jm.wald_test(made().fit, "beta[0]", "x")),
    "wald_df_residual_negative": (V, ["df_residual", "-1"], lambda: jm.wald_test(made().fit, "beta[0]", df_residual=-1)),
    "wald_df_residual_word": (V, ["df_residual", "'x'"], lambda: jm.wald_test(made().fit, "beta[0]", df_residual="x")),
    "wald_of_the_same_twice": (V, ["combination of the rows above"], lambda: jm.wald_test(made().fit, np.array([[1.0, 0, 0], [2, 0, 0]]))),
    "joint_of_no_fit": (T, ["joint_tests"], lambda: jm.joint_tests(3)),
    "joint_terms_list": (T, ["terms", "dictionary"], lambda: jm.joint_tests(made().fit, ["beta"])),
    "lr_the_wrong_way_round": (V, ["fewer free parameters"], lambda: jm.lr_test(made().fit, made().small)),
    "lr_of_other_weights": (V, ["weights", "'frequency'"], lambda: jm.lr_test(made().small, made().weighted)),
    "lr_on_bound_array": (T, ["on_bound"], lambda: jm.lr_test(made().small, made().fit, on_bound=Y)),
    "lr_of_no_fit": (T, ["argument 1", "int"], lambda: jm.lr_test(made().small, 3)),
    "compare_one": (V, ["at least two"], lambda: jm.compare(made().fit)),
    "compare_by_word": (V, ["by must be", "aic"], lambda: jm.compare(made().small, made().fit, by="r2")),
    "compare_nested_word": (T, ["nested"], lambda: jm.compare(made().small, made().fit, nested="yes")),
    "compare_names_of_numbers": (V, ["names"], lambda: jm.compare(made().small, made().fit, names=[1, 2])),
    "holm_of_words": (T, ["pvalues"], lambda: jm.holm("x")),
    "holm_beyond_one": (V, ["between 0 and 1"], lambda: jm.holm([0.1, 1.2])),
    "holm_axis": (V, ["axis"], lambda: jm.holm([0.1, 0.2], axis=3)),
    "entropy_of_a_family_alone": (T, ["family and its parameters"], lambda: jm.entropy(jm.families.normal)),
    "entropy_draws": (V, ["draws"], lambda: jm.entropy((jm.families.normal, {"loc": 0.0, "scale": 1.0}), draws=0)),
    "lint_sample_number": (T, ["sample", "function"], lambda: lint(made().loglik, START, DATA, sample=3)),
    "lint_response_array": (T, ["response"], lambda: lint(made().loglik, START, DATA, response=Y)),
    "lint_key_word": (T, ["key"], lambda: lint(made().loglik, START, DATA, key="x")),
    # ------------------------------------------------------------ records
    "record_level_word": (V, ["level", "'x'"], lambda: made().fit.conf_int("x")),
    "record_level_zero": (V, ["level"], lambda: made().fit.conf_int(0)),
    "record_summary_level": (V, ["level", "0.95"], lambda: made().fit.summary(95)),
    "record_batch_summary_level": (V, ["level"], lambda: made().batch.summary(95)),
    "record_html_level": (V, ["level"], lambda: made().fit.to_html(None)),
    "record_frame_backend": (V, ["backend", "pandas"], lambda: made().fit.to_frame(backend=Y)),
    "record_member_beyond": (IndexError, [r"\(3,\)", "no member 7"], lambda: made().batch[7]),
    "record_member_by_word": (IndexError, ["no member 'a'"], lambda: made().batch["a"]),
    "vcov_asymmetric": (V, ["not symmetric"], lambda: made().fit.with_vcov(ASYMMETRIC)),
    "vcov_indefinite": (V, ["indefinite", "-0.33|-1"], lambda: made().fit.with_vcov(INDEFINITE)),
    "vcov_negative_variance": (V, ["negative variance -1"], lambda: made().fit.with_vcov(-np.eye(3))),
    "vcov_of_holes": (V, ["not finite", "whole row"], lambda: made().fit.with_vcov(HOLED)),
    "vcov_infinite": (V, ["not finite"], lambda: made().fit.with_vcov(np.diag([1.0, 1, np.inf]))),
    "vcov_of_words": (T, ["real numbers"], lambda: made().fit.with_vcov("x")),
    "vcov_complex": (T, ["real numbers"], lambda: made().fit.with_vcov(np.eye(3) * 1j)),
    "vcov_kind_number": (T, ["kind"], lambda: made().fit.with_vcov(np.eye(3), 3)),
    "save_to_a_number": (T, ["path", "3"], lambda: made().fit.save(3)),
    "load_from_none": (T, ["path", "None"], lambda: jm.Fit.load(None)),
    # ------------------------------------------------------------ calculus
    "nll_reduction": (V, ["reduction", "'sum'"], lambda: jm.nll(made().loglik, reduction=None)),
    "information_kind_array": (V, ["kind", "'opg'"], lambda: jm.information(made().loglik, Y)),
    "vcov_kind_none": (V, ["name the kind"], lambda: jm.vcov(made().loglik, None)),
    "vcov_bread_number": (V, ["bread"], lambda: jm.vcov(made().loglik, "HC0", bread=3)),
    "evaluate_block_rows_zero": (V, ["block_rows"], lambda: jm.evaluate(made().loglik, START, DATA, block_rows=0)),
    "evaluate_block_rows_true": (V, ["block_rows", "True"], lambda: jm.evaluate(made().loglik, START, DATA, block_rows=True)),
    "evaluate_params_word": (T, ["sigma", "floating"], lambda: jm.evaluate(made().loglik, {**START, "sigma": "x"}, DATA)),
    "score_of_nan_data": (V, ["NaN in row 3"], lambda: jm.score(made().loglik)(START, data(y=np.where(np.arange(N) == 3, np.nan, Y)))),
    "vcov_function_hac_beyond": (V, ["6 rows"], lambda: jm.vcov(made().loglik, jm.hac(lags=6))(START, DATA)),
    # ------------------------------------------------------------ combinators, priors, laws
    "fix_twice": (V, ["fixed twice", r"beta\[0\]"], lambda: jm.fit(jm.fix(jm.fix(made().loglik, {"beta[0]": 1.0}), {"beta[0]": 2.0}), START, DATA, constraints=POSITIVE)),
    "fix_twice_in_one": (V, ["fixed twice"], lambda: jm.fit(jm.fix(made().loglik, {"beta": 0.0, "beta[0]": 1.0}), START, DATA, constraints=POSITIVE)),
    "fix_at_a_word": (T, ["sigma", "'one'"], lambda: jm.fix(made().loglik, {"sigma": "one"})),
    "fix_at_none": (T, ["sigma", "None"], lambda: jm.fix(made().loglik, {"sigma": None})),
    "fix_at_nothing": (T, ["sigma"], lambda: jm.fix(made().loglik, {"sigma": []})),
    "tie_of_nothing": (V, ["at least one group"], lambda: jm.tie(made().loglik)),
    "tie_of_numbers": (T, ["tuple", "names"], lambda: jm.tie(made().loglik, (1, 2))),
    "tie_of_none": (T, ["tuple", "None"], lambda: jm.tie(made().loglik, None)),
    "ridge_negative": (V, ["strength", "non-negative", "-1"], lambda: jm.ridge(-1)),
    "ridge_nan": (V, ["strength", "nan"], lambda: jm.ridge(np.nan)),
    "ridge_word": (T, ["strength", "'x'"], lambda: jm.ridge("x")),
    "ridge_leaf_number": (T, ["leaf", "3"], lambda: jm.ridge(1.0, 3)),
    "ridge_leaf_unknown": (V, ["'tau'"], lambda: jm.fit(jm.penalize(made().loglik, jm.ridge(1.0, "tau")), START, DATA, constraints=POSITIVE)),
    "normal_prior_sd_negative": (V, ["sd", "positive", "-1"], lambda: jm.normal_prior(0, -1)),
    "normal_prior_sd_zero": (V, ["sd", "positive"], lambda: jm.normal_prior(0, 0.0)),
    "normal_prior_mean_infinite": (V, ["mean", "inf"], lambda: jm.normal_prior(np.inf, 1)),
    "normal_prior_none": (T, ["mean", "None"], lambda: jm.normal_prior(None, 1)),
    "normal_prior_shape": (V, ["mean", r"\(3,\)", r"\(2,\)"], lambda: jm.fit(jm.penalize(made().loglik, jm.normal_prior(np.zeros(3), 1.0, "beta")), START, DATA, constraints=POSITIVE)),
    "prior_of_a_vector": (V, ["log prior", "one floating-point number"], lambda: jm.fit(jm.penalize(made().loglik, lambda p: -(p["beta"] ** 2)), START, DATA, constraints=POSITIVE)),
    "prior_of_none": (V, ["log prior", "None"], lambda: jm.fit(jm.penalize(made().loglik, lambda p: None), START, DATA, constraints=POSITIVE)),
    "prior_class": (T, ["penalize", "function"], lambda: jm.penalize(made().loglik, dict)),
    "pool_of_numbers": (T, ["loglik", "int"], lambda: jm.pool(made().loglik, 3)),
    "jeffreys_information": (V, ["information", "'expected'"], lambda: jm.jeffreys(made().loglik, information=Y)),
    "law_number": (T, ["law", "enumeration"], lambda: jm.with_response(made().loglik, 3)),
    "enumeration_leaf": (T, ["leaf", "3"], lambda: jm.enumeration(3, [0, 1])),
    "enumeration_values_none": (T, ["values", "None"], lambda: jm.enumeration("y", None)),
    "enumeration_values_twice": (V, ["values", "distinct"], lambda: jm.enumeration("y", [0, 1, 1])),
    "simulation_draws": (V, ["draws", "2 or more"], lambda: jm.simulation(sampler, key=jax.random.key(0), draws=1)),
    "simulation_key_number": (T, ["key", "jax.random.key"], lambda: jm.simulation(sampler, key="a")),
    "simulation_sampler": (T, ["sampler", "function"], lambda: jm.simulation(3, key=jax.random.key(0))),
    "regression_density": (T, ["density", "function"], lambda: jm.regression(3, {"mu": "beta"})),
    "regression_eta_list": (T, ["eta", "dictionary"], lambda: jm.regression(lambda eta, row: 0.0, ["mu"])),
    "regression_response": (T, ["response", "enumeration"], lambda: jm.regression(lambda eta, row: 0.0, {"mu": "m"}, response="y")),
    "linear_of_an_array": (T, ["x must be the name of a leaf"], lambda: jm.linear(X, "beta")),
    "hac_kernel": (V, ["kernel", "bartlett"], lambda: jm.hac(Y)),
    "hac_lags_negative": (V, ["lags", "-1"], lambda: jm.hac(lags=-1)),
    "hac_bandwidth_word": (V, ["bandwidth", "newey-west"], lambda: jm.hac(bandwidth="wide")),
    "hac_bandwidth_none": (V, ["bandwidth", "None"], lambda: jm.hac(bandwidth=None)),
    "hac_weights_words": (V, ["weights", "'x'"], lambda: jm.hac(weights="x")),
    # ------------------------------------------------------------ constraints, families, models
    "interval_words": (V, ["a is an end", "'low'"], lambda: jm.interval("low", "high")),
    "interval_none": (T, ["b is an end", "None"], lambda: jm.interval(0, None)),
    "lower_beyond_floats": (V, ["too large"], lambda: jm.lower(10**400)),
    "upper_complex": (V, ["b is an end"], lambda: jm.upper(1j)),
    "truncated_low_word": (V, ["low", "'x'"], lambda: jm.families.truncated(jm.families.normal, low="x")),
    "truncated_reversed": (V, ["low < high"], lambda: jm.families.truncated(jm.families.normal, low=2, high=1)),
    "rounded_width": (V, ["width", "positive"], lambda: jm.families.rounded(jm.families.normal, width=0)),
    "model_offset_array": (T, ["offset", "leaf"], lambda: jm.models.poisson(offset=Y)),
    "model_classes_fraction": (V, ["classes", "2.5"], lambda: jm.models.multinomial(2.5)),
    "model_classes_without_end": (V, ["classes", "at most"], lambda: jm.models.ordinal(10**12)),
    "model_link_list": (T, ["link", "word"], lambda: jm.models.binomial(link=["logit"])),
    "model_law_unknown": (V, ["law", "weibull"], lambda: jm.models.aft("cauchy")),
    "model_limits_words": (V, ["lower", "'x'"], lambda: jm.models.tobit(lower="x")),
    "model_df_word": (V, ["df", "'x'"], lambda: jm.models.student_t(df="x")),
    "model_family_word": (T, ["family", "'normal'"], lambda: jm.models.distribution("normal")),
    "model_without_data": (T, ["poisson", "dictionary"], lambda: jm.models.poisson().start(None)),
    # ------------------------------------------------------------ formulas
    "formula_power_that_explodes": (V, ["more than 10,000 terms"], lambda: of_formula("y ~ (a + c + g)**26")),
    "formula_product_that_explodes": (V, ["more than 10,000 terms"], lambda: of_formula("y ~ " + "*".join(f"v{i}" for i in range(30)))),
    "formula_power_of_a_power": (V, ["more than 10,000 terms"], lambda: of_formula("y ~ ((a + c)**9)**9")),
    "formula_caret": (V, ["more than 10,000 terms"], lambda: of_formula("y ~ (a + c + g)^99999999999")),
    "formula_number": (T, ["formula", "int"], lambda: of_formula(3)),
    "formula_without_tilde": (V, ["~"], lambda: of_formula("y")),
    "formula_unknown_column": (V, ["'b'|b"], lambda: of_formula("y ~ b")),
    "formula_code": (V, ["not allowed"], lambda: of_formula("y ~ open(a)")),
    "formula_also_list": (T, ["also", "dictionary"], lambda: of_formula(also=["g"])),
    "formula_by_number": (T, ["by", "3"], lambda: of_formula(by=3)),
    "formula_intercept_word": (T, ["intercept"], lambda: of_formula(intercept="no")),
    "formula_missing_word": (V, ["missing", "'warn'"], lambda: of_formula(missing=3)),
    "formula_weights_bare": (T, ["frequency"], lambda: of_formula(weights="a")),
    "formula_of_no_table": (T, ["frame", "list"], lambda: jm.from_formula("y ~ a", [1, 2])),
    # ------------------------------------------------------------ pictures
    "curve_without_the_weights": (V, ["'frequency'"], lambda: asked(jm.plots.likelihood_curve, "sigma", fit=made().weighted)),
    "curve_of_other_data": (V, ["not those of the fit"], lambda: asked(jm.plots.likelihood_curve, "sigma", data=data(y=Y + 1))),
    "curve_of_no_name": (T, ["string"], lambda: asked(jm.plots.likelihood_curve, 3)),
    "curve_width_word": (V, ["width", "'x'"], lambda: asked(jm.plots.likelihood_curve, "sigma", "x")),
    "curve_points_without_end": (V, ["points", "at most"], lambda: asked(jm.plots.likelihood_curve, "sigma", points=10**12)),
    "forest_reference_word": (V, ["reference", "'x'"], lambda: jm.plots.forest(made().fit, reference="x")),
    "qq_seed_word": (T, ["seed"], lambda: jm.plots.qq(Y, seed="x")),
    "qq_of_a_mask": (T, ["mask"], lambda: jm.plots.qq(MASKED)),
    "pit_bins_without_end": (V, ["bins", "at most"], lambda: jm.plots.pit(np.linspace(0.1, 0.9, N), bins=10**12)),
    "profile_picture_of_no_name": (V, ["no quantity"], lambda: jm.plots.profile(made().profile, Y)),
    "map_truth_word": (V, ["truth", "'x'"], lambda: jm.plots.batch_map(made().batch, "sigma", truth="x")),
    "trace_label_list": (T, ["label"], lambda: jm.plots.trace([1.0, 2.0], label=[])),
}  # fmt: skip

INTERNALS = (
    "has no attribute", "truth value", "not subscriptable", "not callable", "not iterable", "unhashable", "could not convert", "could not be broadcast",
    "positional argument", "unsupported operand", "not supported between", "Traced<", "ShapedArray", "jaxpr", "ufunc", "PRNG", "axes don't match",
)  # fmt: skip


@pytest.mark.parametrize("name", DOORS)
def test_every_door_refuses_in_its_own_words(name, caplog):
    error, words, call = DOORS[name]
    made()
    with jax.log_compiles(), caplog.at_level("WARNING"), pytest.raises(error) as raised:
        call()
    told = str(raised.value)
    for pattern in words:
        assert re.search(pattern, told), f"{pattern!r} not in: {told}"
    assert len(told) < 700
    assert not [word for word in INTERNALS if word in told], told
    place = raised.traceback[-1]
    assert "jaxmle" in str(place.path)
    assert str(place.statement).lstrip().startswith("raise"), place.statement


def test_there_are_enough_doors():
    assert len(DOORS) >= 150


@pytest.mark.parametrize(
    "options",
    [{"max_steps": np.int64(30)}, {"max_steps": np.array(30)}, {"block_rows": np.int32(8)}, {"progress": np.bool_(False)}],
)  # fmt: skip
def test_numbers_of_numpy_are_taken_where_python_s_are(options):
    assert fitted(**options).converged
