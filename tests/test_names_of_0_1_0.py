"""Every public name of 0.1.0 imports from where it was."""

from importlib import import_module

import pytest

NAMES = {
    "geomem": """
        ConfidenceIntervalSampler Curves DangerZone DataSet GapSampler InputError LogNormalSampler Monitor
        NoiseLevelSampler UniformTimestepSampler __version__ find_danger_zone geometry_curves load_data
        load_denoiser max_posterior_weight memorization_rate read_zone refined_curves shell_coverage
        theorem_4_2_thresholds theorem_4_8_bounds training_risk
    """,
    "geomem.geometry": """
        CoverageBounds CoverageBySize Curves DangerZone Estimate FlowCosine LinearProjection LogLogSlope
        NearPoint PosteriorWeights PreciseCurves ThresholdSummary Thresholds TrainingRisk ZoneBySize
        coverage_by_training_size curves_to_tolerance denoiser_near_point find_danger_zone flow_cosine
        geometry_curves max_posterior_weight principal_components refined_curves shell_coverage shell_radii
        theorem_4_2_thresholds theorem_4_8_bounds training_risk two_shell_probability widened_gap
        zone_by_training_size zone_reason
    """,
    "geomem.noise": """
        ConfidenceIntervalSampler DDPMSchedule GapSampler LogNormalSampler NoiseLevelSampler SIGMA_MAX SIGMA_MIN
        UniformTimestepSampler contribution contribution_slope edm_steps flow_time_to_sigma read_zone
        sigma_to_flow_time
    """,
    "geomem.models": """
        Denoiser EDMDenoiser EmpiricalDenoiser EpsilonDenoiser FixedClass ForeignNetwork GaussianDenoiser
        GaussianLaw NETWORKS PREDICTIONS PUBLISHED_WINDOWS PiecewiseDenoiser PixelSensitivity SensitivityBound
        SigmaDenoiser SkippingDenoiser TimestepDenoiser Window build_network circulant_eigenvalues
        default_network expand_sigma gaussian_law pixel_sensitivity sensitivity_bound swapped_denoiser
    """,
    "geomem.training": """
        BestWeights EarlierWeights Interrupted Origin Pretrained Run Trainer TrainingDiverged TrainingSettings
        WithNoiseImages denoising_loss evaluation_steps export_run heldout_losses initial_denoiser load_denoiser
        train untrained_denoiser watch_steps
    """,
    "geomem.generation": """
        METHODS ddim_sample edm_sample generate latents timestep_levels
    """,
    "geomem.memorization": """
        CopyCounts Look MemorizationRate Monitor PairedShareDifference PerNoiseLevel RankCorrelation Watch
        control_windows copies_per_point default_watch_every memorization_per_noise_level memorization_rate
        paired_share_difference rank_correlation swapped_samples wilson_interval
    """,
    "geomem.quality": """
        Correlation DifferenceOverSeeds InceptionFeatures Judge METRICS MeanOverRuns Measurement PrecisionRecall
        QualityReport difference_over_seeds frechet_distance inception_features jensen_shannon kernel_distance
        mean_over_runs mean_training_distance pareto_front pearson_correlation precision_recall
        quality_report wasserstein_1
    """,
    "geomem.plots": """
        plot_bounds plot_copies plot_curves plot_density plot_noise_levels plot_pareto plot_points plot_risk
        plot_samples plot_swap plot_swap_samples plot_training plot_watch
    """,
    "geomem.report": """
        DataFacts Missing RunFacts SampleFacts compare frechet_difference judge render_page share_difference
    """,
    "geomem.data": """
        DataSet StoredPoints from_uint8 load_data to_uint8
    """,
}


@pytest.mark.parametrize("package", NAMES)
def test_names_import_from_their_old_place(package):
    module = import_module(package)
    missing = [name for name in NAMES[package].split() if getattr(module, name, None) is None]
    assert not missing
