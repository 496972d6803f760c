"""Train an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from h2e._ensemble.ensemble import Ensemble
from h2e._ensemble.extraction import Features
from h2e._ensemble.fitting import FitConfig, announce_models
from h2e._ensemble.scale_cue import fit_scale_cue
from h2e._ensemble.stack import StackKind
from h2e._ensemble.training import check_cohort, folds_within, learners_of, train, warn_absent
from h2e._ensemble.transforms import TransformKind
from h2e._learners.folds import QUARTER
from h2e._learners.learner import Learner
from h2e._learners.registry import DEFAULT_LEARNERS, LearnerName
from h2e._sdata import keys as _keys
from h2e._sdata.cohort import open_cohort, size_of
from h2e._sdata.keys import Keys
from h2e._sdata.target_spec import TargetSpec
from h2e._warnings import log

if TYPE_CHECKING:
    from spatialdata import SpatialData


def fit(
    sdata: SpatialData,
    *,
    group_key: str | None = None,
    targets: str | Sequence[str] | None = None,
    obsm: str | None = None,
    learners: LearnerName | Learner | Sequence[LearnerName | Learner] = DEFAULT_LEARNERS,
    layer: str | None = None,
    log_normalized: bool = False,
    um_per_px: float | Mapping[str, float] | None = None,
    run_dir: str | PathLike | None = None,
    n_targets: int = 35,
    transform: TransformKind = "mixed",
    n_programmes: int = 10,
    stack: StackKind = "mean",
    library_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    tissue_mask_key: str | None = None,
    normalized_key: str | Mapping[str, str] | None = None,
    table_key: str = _keys.TABLE,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> Ensemble:
    """Train a leave-one-group-out ensemble on slides with spots.

    For each learner one model is trained without each group, and one with all. The models without a group predict it;
    from these out-of-fold predictions alone the stack learns how to combine the learners. Where
    :func:`h2e.pp.normalize_stains` made normalized images, models see the images brought to the reference that is
    stored with them, as these do, else the images as they are. Spots without any tissue in their own subtile, or with
    0 in ``obs["in_tissue"]`` (Space Ranger), are not trained on. Nothing is written to ``sdata``.

    Parameters
    ----------
    sdata
        Slides, one table over all of them.
    group_key
        Column of ``table.obs`` with the groups (donors) to leave out. ``None`` leaves out slides, with a warning:
        sections of one donor on both sides make held-out scores too good. A single slide is cut into quarters.
    targets
        Genes, columns of ``obsm`` or, by names that no gene has, columns of ``table.obs`` with numbers (yes and no are 1
        and 0), to predict; of one kind. Spots where ``obsm`` or ``obs`` has no value of one of them are not trained on,
        and counted in the log. ``None``: all columns of ``obsm``, or without it the ``n_targets``
        genes that vary most in space, chosen on all groups; so choose with :func:`h2e.tl.evaluate`, which chooses anew
        without each group, when a score is wanted. Those of :func:`h2e.pp.select_targets` are taken only where they are
        named: ``targets=table.var_names[table.var["h2e_target"]]``.
    obsm
        Predict the columns of this frame of ``table.obsm``, such as proportions of cell types, in place of genes.
    learners
        Names or instances, also of a :class:`Learner` of your own. Statistics of colour, stain and texture with ridge
        regression (``"texture"``), nearest neighbours (``"knn"``) or partial least squares (``"pls"``); features of a
        frozen encoder with ridge (``"embedding"``, by default of a small network that comes with h2e, see
        :class:`Embedding`). These four are the default; the encoder is the slowest of them. The convolutional network
        ``"multiscale"``, which takes hours without a GPU; ``"mean"``, ``"coordinates"``.
    layer
        Layer with the counts; ``None`` takes ``table.X``.
    log_normalized
        The values are log-normalized already.
    um_per_px
        µm per pixel of the image at its finest level, or a mapping from slide or image to it, where nothing else tells
        it; refused where it contradicts what does.
    run_dir
        Folder that keeps each finished model; an interrupted run continues where it was. A model is trained again where
        the code that trains it has changed, that of h2e or the file that defines a learner of your own.

    Other Parameters
    ----------------
    n_targets
        How many genes to choose where ``targets=None``.
    transform
        What is learned: ``"log"`` log-normalized expression, ``"standardized"`` within each slide, ``"mixed"`` both
        of these, averaged, ``"gene_rank"`` its rank within the slide, ``"spot_rank"`` its rank among the targets of
        the spot. Predictions come back in log-normalized expression whatever is learned.
    n_programmes
        What a gene has in common with others is known better than the gene itself: the values that models are trained
        on are averaged with their projection on that many principal components of the 1,000 genes that vary most
        within slides, found anew on the training spots of each model. 0 trains on the genes as measured. Scores
        always take what was measured; columns of ``obsm`` are trained on as they are.
    stack
        How the learners become one: ``"mean"``; ``"ridge"``, non-negative weights per target, shrunk towards the
        mean, and used only if they beat it on groups left out; ``"mlp"``, a perceptron on the out-of-fold predictions
        of all targets; ``"in_sample"``, the same on what every fold model says of every spot, also of those that it
        was trained on, as in the method's source (its own training error is no estimate of anything); ``"nested"``,
        the same, but each spot by models that did not see its group, for which a model of every pair of groups is
        trained. With fewer than three groups: the mean.
    library_key
        Column of ``table.obs`` that says which slide a spot belongs to; by default the table's region key.
    image_key
        Image of each region, a name or a mapping, where it cannot be found by its coordinate system.
    tissue_mask_key
        Labels or shapes with the tissue; by default ``"{image}_tissue"``, and where it is missing it is found now.
    normalized_key
        Normalized image that models see, a name or a mapping from image to it; by default ``"{image}_normalized"``,
        or what else :func:`h2e.pp.normalize_stains` made of the image.
    table_key
        Table over all slides.
    seed
        The same seed on the same machine gives the same ensemble.
    device
        For networks: ``"cpu"``, ``"cuda"``, ``"mps"``; ``None`` takes CUDA if there is one.
    progress
        Show progress bars, and before them what is done and about how long it takes; ``False`` says this in the log.

    Returns
    -------
    An ensemble; ``ensemble.loo`` are its held-out predictions, ``ensemble.history`` the training losses. On new slides
    each learner says the mean of its models of three groups or more, or, with three groups or fewer, what its model of
    all says.

    Raises
    ------
    KeyError
        A table, column, layer, image or target is not there; the message lists what is.
    ValueError
        Images cannot be paired with regions, spots lie outside of their image, one section is there under two names,
        there is only one group, expression is negative, NaN, or no counts.

    Examples
    --------
    >>> import h2e
    >>> sdata = h2e.datasets.toy_cohort(n_slides=2, n_donors=2, side=6)
    >>> h2e.tl.fit(sdata, learners="texture", n_targets=4, group_key="donor", progress=False)
    Ensemble of 3 models (texture; stack: mean) for 4 targets, trained on 44 spots of 2 slides, leaving out ['A', 'B']
    """
    config = FitConfig(learners_of(learners, device), transform, stack, seed, run_dir, progress, n_programmes)
    keys = Keys(table_key, image_key, tissue_mask_key, normalized_key, library_key, group_key, um_per_px)
    n_spots, n_slides, groups = size_of(sdata, keys)
    announce_models("fit", n_spots, n_slides, config.learners, len(config.learners) * (groups + 1), progress=progress)
    spec = TargetSpec(open_cohort(sdata, keys), targets, n_targets, obsm, layer, log_normalized).with_values()
    cohort = spec.cohort
    check_cohort(cohort, spec, group_key)
    spots = np.arange(len(cohort.rows))
    folds = folds_within(cohort, spots, config.learners)
    left_out = QUARTER if len(cohort.slides) == 1 else group_key or "slide"
    ensemble, values, _ = train(Features(cohort, progress), spec, spots, folds, config, left_out=left_out)
    if spec.chosen:
        warn_absent(spec, list(values))
    if constant := [name for name, column in values.items() if column.nunique() == 1]:
        log.warning("targets %s have one value at all %d spots: there is nothing to learn", constant, len(spots))
    # Learners that look at no image get along with any size of a pixel.
    looks = any(learner.uses == "tiles" for learner in config.learners)
    return replace(ensemble, scale_cue=fit_scale_cue(cohort.slides)) if looks else ensemble
