"""What R prints for the two regressions: (estimate, standard error) by coefficient.

Each number is R 4.2.2's fit, carried by Newton steps on the same log-likelihood to the last digit shown.
"""

# survival 3.5.3: survreg(Surv(time, status) ~ age + sex + ph.ecog, lung, dist = "weibull"); it prints the scale's logarithm.
WEIBULL_SOURCE = "R 4.2.2, survival 3.5.3"
WEIBULL_LOGLIK = -1132.43874588232
WEIBULL = {
    "const": (6.27343525199646, 0.453577710968163),
    "age": (-0.00747543940909854, 0.00676350766967317),
    "sex": (0.401090541193468, 0.123732566598752),
    "ecog": (-0.339638098309243, 0.0834784149980768),
    "log(sigma)": (-0.313192730258098, 0.0613464552119809),
}

# stats 4.2.2, data of MASS 7.3.58.2: glm(low ~ age + lwt + race + smoke + (ptl > 0) + ht + ui, binomial, birthwt).
LOGISTIC_SOURCE = "R 4.2.2, glm"
LOGISTIC_LOGLIK = -98.4168517646642
LOGISTIC = {
    "const": (0.636909664068401, 1.23031220236324),
    "age": (-0.037749642552998, 0.037810939590904),
    "lwt": (-0.0149102676586761, 0.00704045658383237),
    "black": (1.2127419553198, 0.532488304201395),
    "other": (0.804119399303705, 0.448444707878141),
    "smoke": (0.846402282824237, 0.408074558564437),
    "ptl": (1.22175078682561, 0.463015333118405),
    "ht": (1.83868722849451, 0.703252123308496),
    "ui": (0.711127761524248, 0.463119952254804),
}
