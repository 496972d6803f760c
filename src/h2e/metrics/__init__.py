"""Score predictions, per target over the spots of a slide."""

from ._ceiling import ceiling, reliability
from ._correlation import ccc, constant_profile_rho, pearson, spearman, spot_rho, within_domain
from ._coverage import coverage, cross_coverage, residual_quantile
from ._depth import pearson_beyond_depth, pearson_equal_depth, pearson_no_biology
from ._distribution import auroc_detect, js, moran_gap, nmi, ssim_global
from ._error import mae, nrmse_range, nrmse_sd, r2, rmse, skill, variance_ratio
from ._inference import Comparison, block_bootstrap, bootstrap_interval, compare
from ._null import false_discovery_rate, spatial_pvalue
from ._score import score
from ._summary import summarize
from ._table import score_adata

__all__ = [
    "Comparison", "auroc_detect", "block_bootstrap", "bootstrap_interval", "ccc", "ceiling", "compare",
    "constant_profile_rho", "coverage", "cross_coverage", "false_discovery_rate", "js", "mae", "moran_gap", "nmi",
    "nrmse_range", "nrmse_sd", "pearson", "pearson_beyond_depth", "pearson_equal_depth", "pearson_no_biology", "r2", "reliability", "residual_quantile", "rmse", "score", "score_adata",
    "skill", "spatial_pvalue", "spearman", "spot_rho", "ssim_global", "summarize", "variance_ratio",
    "within_domain",
]  # fmt: skip
