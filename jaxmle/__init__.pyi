"""The public names, each once: type checkers read this file, and ``__init__.py`` loads by it."""

from . import datasets as datasets
from . import distributed as distributed
from . import families as families
from . import models as models
from . import plots as plots
from . import sklearn as sklearn
from . import solvers as solvers
from . import special as special
from . import survival as survival
from .batch.batch import (
    fit_batch as fit_batch,
)
from .command.describe import (
    describe as describe,
)
from .data.codes import (
    Codes as Codes,
)
from .data.codes import (
    codes as codes,
)
from .data.frame import (
    Frame as Frame,
)
from .data.frame import (
    from_formula as from_formula,
)
from .data.groups import (
    GroupFits as GroupFits,
)
from .data.groups import (
    fit_groups as fit_groups,
)
from .data.response import (
    EmptyLevelWarning as EmptyLevelWarning,
)
from .data.rows import (
    MissingRowsWarning as MissingRowsWarning,
)
from .distributed.public_fit import (
    fit as fit,
)
from .effects.margins import (
    margins as margins,
)
from .effects.record import (
    Margins as Margins,
)
from .fitting.signals import (
    BroadcastWarning as BroadcastWarning,
)
from .fitting.signals import (
    DerivativeRuleWarning as DerivativeRuleWarning,
)
from .fitting.signals import (
    MeanLikelihoodWarning as MeanLikelihoodWarning,
)
from .inference.conjugate_gradients import (
    stderr_by_cg as stderr_by_cg,
)
from .inference.delta import (
    Delta as Delta,
)
from .inference.delta import (
    delta as delta,
)
from .inference.diagnostics.bias_reduction import (
    mean_br as mean_br,
)
from .inference.diagnostics.disagreement import (
    Disagreement as Disagreement,
)
from .inference.diagnostics.disagreement import (
    disagreement as disagreement,
)
from .inference.diagnostics.influence import (
    Influence as Influence,
)
from .inference.diagnostics.influence import (
    influence as influence,
)
from .inference.diagnostics.residuals import (
    deviance_residuals as deviance_residuals,
)
from .inference.diagnostics.residuals import (
    pearson_residuals as pearson_residuals,
)
from .inference.diagnostics.residuals import (
    pit as pit,
)
from .inference.diagnostics.residuals import (
    quantile_residuals as quantile_residuals,
)
from .inference.hypotheses.hauck_donner import (
    HauckDonner as HauckDonner,
)
from .inference.hypotheses.hauck_donner import (
    hauck_donner as hauck_donner,
)
from .inference.hypotheses.information_matrix import (
    information_matrix_test as information_matrix_test,
)
from .inference.hypotheses.likelihood_ratio import (
    lr_test as lr_test,
)
from .inference.hypotheses.multiplicity import (
    benjamini_hochberg as benjamini_hochberg,
)
from .inference.hypotheses.multiplicity import (
    holm as holm,
)
from .inference.hypotheses.record import (
    Test as Test,
)
from .inference.hypotheses.satterthwaite import (
    Satterthwaite as Satterthwaite,
)
from .inference.hypotheses.satterthwaite import (
    satterthwaite as satterthwaite,
)
from .inference.hypotheses.score import (
    score_test as score_test,
)
from .inference.hypotheses.vuong import (
    vuong_test as vuong_test,
)
from .inference.hypotheses.wald import (
    JointTests as JointTests,
)
from .inference.hypotheses.wald import (
    joint_tests as joint_tests,
)
from .inference.hypotheses.wald import (
    wald_test as wald_test,
)
from .inference.linting.lint import (
    lint as lint,
)
from .inference.linting.report import (
    LintReport as LintReport,
)
from .inference.profiles.contour import (
    Contour as Contour,
)
from .inference.profiles.contour import (
    contour as contour,
)
from .inference.profiles.end_gradient import (
    profile_end as profile_end,
)
from .inference.profiles.profile import (
    Profile as Profile,
)
from .inference.profiles.profile import (
    profile as profile,
)
from .inference.profiles.root_finder import (
    End as End,
)
from .inference.profiles.simultaneous import (
    Simultaneous as Simultaneous,
)
from .inference.profiles.simultaneous import (
    simultaneous as simultaneous,
)
from .inference.resampling.bootstrap import (
    Bootstrap as Bootstrap,
)
from .inference.resampling.bootstrap import (
    bootstrap as bootstrap,
)
from .inference.resampling.calibrate import (
    calibrate as calibrate,
)
from .inference.resampling.calibration import (
    Calibration as Calibration,
)
from .inference.resampling.jackknife import (
    InfinitesimalJackknife as InfinitesimalJackknife,
)
from .inference.resampling.jackknife import (
    Jackknife as Jackknife,
)
from .inference.resampling.jackknife import (
    infinitesimal_jackknife as infinitesimal_jackknife,
)
from .inference.resampling.jackknife import (
    jackknife as jackknife,
)
from .inference.selection.best_family import (
    Candidate as Candidate,
)
from .inference.selection.best_family import (
    FamilyRanking as FamilyRanking,
)
from .inference.selection.best_family import (
    best_family as best_family,
)
from .inference.selection.compare import (
    Comparison as Comparison,
)
from .inference.selection.compare import (
    Takeuchi as Takeuchi,
)
from .inference.selection.compare import (
    compare as compare,
)
from .inference.selection.compare import (
    tic as tic,
)
from .inference.selection.divergence import (
    Information as Information,
)
from .inference.selection.divergence import (
    cross_entropy as cross_entropy,
)
from .inference.selection.divergence import (
    entropy as entropy,
)
from .inference.selection.divergence import (
    kl_divergence as kl_divergence,
)
from .interop.marginal_effects import (
    to_marginaleffects as to_marginaleffects,
)
from .interop.numpyro_models import (
    NumpyroModel as NumpyroModel,
)
from .interop.numpyro_models import (
    from_numpyro as from_numpyro,
)
from .lake import engines as engines
from .lake.compile_cache import (
    compile_cache as compile_cache,
)
from .lake.fit_lake import (
    fit_lake as fit_lake,
)
from .lake.fit_table import (
    fit_table as fit_table,
)
from .lake.record import (
    LakeFits as LakeFits,
)
from .likelihood.combinators import (
    fix as fix,
)
from .likelihood.combinators import (
    frequency as frequency,
)
from .likelihood.combinators import (
    penalize as penalize,
)
from .likelihood.combinators import (
    pool as pool,
)
from .likelihood.combinators import (
    sampling as sampling,
)
from .likelihood.combinators import (
    tie as tie,
)
from .likelihood.combinators import (
    weight as weight,
)
from .likelihood.combinators import (
    with_response as with_response,
)
from .likelihood.discovery.self_check import (
    DiscoveryWarning as DiscoveryWarning,
)
from .likelihood.discovery.self_check import (
    opaque as opaque,
)
from .likelihood.information.bias import (
    jeffreys as jeffreys,
)
from .likelihood.information.calculus import (
    cox_snell as cox_snell,
)
from .likelihood.information.calculus import (
    evaluate as evaluate,
)
from .likelihood.information.calculus import (
    hessian as hessian,
)
from .likelihood.information.calculus import (
    information as information,
)
from .likelihood.information.calculus import (
    information_error as information_error,
)
from .likelihood.information.calculus import (
    nll as nll,
)
from .likelihood.information.calculus import (
    score as score,
)
from .likelihood.information.calculus import (
    scores as scores,
)
from .likelihood.information.calculus import (
    vcov as vcov,
)
from .likelihood.information.hac import (
    hac as hac,
)
from .likelihood.priors import (
    normal_prior as normal_prior,
)
from .likelihood.priors import (
    ridge as ridge,
)
from .likelihood.regression import (
    linear as linear,
)
from .likelihood.regression import (
    regression as regression,
)
from .likelihood.response import (
    enumeration as enumeration,
)
from .likelihood.response import (
    exact as exact,
)
from .likelihood.response import (
    simulation as simulation,
)
from .mixtures.em import (
    EM as EM,
)
from .mixtures.em import (
    em as em,
)
from .mixtures.em import (
    em_steps as em_steps,
)
from .mixtures.gaussian_mixture import (
    VarianceFloor as VarianceFloor,
)
from .mixtures.gaussian_mixture import (
    gaussian_mixture as gaussian_mixture,
)
from .mixtures.mixture_of import (
    mixture_of as mixture_of,
)
from .parameters.constraints import (
    correlation as correlation,
)
from .parameters.constraints import (
    covariance as covariance,
)
from .parameters.constraints import (
    free as free,
)
from .parameters.constraints import (
    interval as interval,
)
from .parameters.constraints import (
    lower as lower,
)
from .parameters.constraints import (
    negative as negative,
)
from .parameters.constraints import (
    ordered as ordered,
)
from .parameters.constraints import (
    positive as positive,
)
from .parameters.constraints import (
    simplex as simplex,
)
from .parameters.constraints import (
    upper as upper,
)
from .record.check import (
    FitError as FitError,
)
from .record.fit import (
    Fit as Fit,
)
from .record.fit import (
    Witness as Witness,
)
from .runtime.compile import (
    UnwatchedClosureWarning as UnwatchedClosureWarning,
)
from .solvers.status import (
    Status as Status,
)
from .starts.multistart import (
    Multistart as Multistart,
)
from .starts.multistart import (
    multistart as multistart,
)
from .stochastic.stochastic import (
    StochasticFit as StochasticFit,
)
from .stochastic.stochastic import (
    fit_stochastic as fit_stochastic,
)
from .streams.parquet import (
    ParquetRows as ParquetRows,
)
from .streams.parquet import (
    parquet as parquet,
)
from .survival.estimators import (
    EmptyRiskSetWarning as EmptyRiskSetWarning,
)
from .tables.side_by_side import (
    Table as Table,
)
from .tables.side_by_side import (
    table as table,
)

__version__: str
