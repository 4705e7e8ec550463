"""Questions asked of a fit."""

from jaxmle.inference.bias_reduction import mean_br
from jaxmle.inference.bootstrap import Bootstrap, bootstrap
from jaxmle.inference.calibrate import calibrate
from jaxmle.inference.calibration import Calibration
from jaxmle.inference.constrained import End
from jaxmle.inference.contour import Contour, contour
from jaxmle.inference.delta import Delta, delta
from jaxmle.inference.disagreement import Disagreement, disagreement
from jaxmle.inference.divergence import Information, cross_entropy, entropy, kl_divergence
from jaxmle.inference.families import Candidate, FamilyRanking, best_family
from jaxmle.inference.hauck_donner import HauckDonner, hauck_donner
from jaxmle.inference.hypotheses import JointTests, joint_tests, wald_test
from jaxmle.inference.influence import Influence, influence
from jaxmle.inference.jackknife import (
    InfinitesimalJackknife,
    Jackknife,
    infinitesimal_jackknife,
    jackknife,
)
from jaxmle.inference.likelihood_ratio import lr_test
from jaxmle.inference.lint import lint
from jaxmle.inference.lint_report import LintReport
from jaxmle.inference.misspecification import information_matrix_test
from jaxmle.inference.multiplicity import benjamini_hochberg, holm
from jaxmle.inference.outcome import Test
from jaxmle.inference.profile import Profile, profile
from jaxmle.inference.profile_gradient import profile_end
from jaxmle.inference.residuals import (
    deviance_residuals,
    pearson_residuals,
    pit,
    quantile_residuals,
)
from jaxmle.inference.satterthwaite import Satterthwaite, satterthwaite
from jaxmle.inference.score import score_test
from jaxmle.inference.selection import Comparison, Takeuchi, compare, tic
from jaxmle.inference.simultaneous import Simultaneous, simultaneous
from jaxmle.inference.vuong import vuong_test

__all__ = [
    "Bootstrap", "Calibration", "Candidate", "Comparison", "Contour", "Delta", "Disagreement",
    "End", "FamilyRanking", "HauckDonner", "InfinitesimalJackknife", "Influence", "Information",
    "Jackknife", "JointTests", "LintReport", "Profile", "Satterthwaite", "Simultaneous",
    "Takeuchi", "Test", "benjamini_hochberg", "best_family", "bootstrap", "calibrate", "compare",
    "contour", "cross_entropy", "delta", "deviance_residuals", "disagreement", "entropy",
    "hauck_donner", "holm", "infinitesimal_jackknife", "influence", "information_matrix_test",
    "jackknife", "joint_tests", "kl_divergence", "lint", "lr_test", "mean_br", "pearson_residuals",
    "pit", "profile", "profile_end", "quantile_residuals", "satterthwaite", "score_test",
    "simultaneous", "tic", "vuong_test", "wald_test",
]  # fmt: skip
