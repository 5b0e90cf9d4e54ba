"""Complete bundles with tiny networks of random weights, made by the code that makes real ones."""

import json
from pathlib import Path

import pytest
import torch

from msnode.segment.architectures.plain_conv_unet import plain_conv_unet
from msnode.train.promote import promote
from msnode.train.recipe import load_recipe

torch.set_num_threads(1)  # threads that wait for each other on a busy machine cost minutes

RECIPE = Path(__file__).resolve().parents[2] / "config" / "recipes" / "nnunet2d.toml"


@pytest.fixture(scope="session")
def tiny_recipe():
    """For whole heads: no skull is stripped."""
    recipe = load_recipe(RECIPE)
    network = recipe.network.model_copy(update={"features": (4, 8, 8), "patch": (32, 32)})
    bundle = recipe.bundle.model_copy(update={"name": "tiny", "version": "0.1.0"})
    return recipe.model_copy(update={"preprocess": "flair2d-head-v1", "network": network, "bundle": bundle})


@pytest.fixture(scope="session")
def tiny_plans():
    """Plans as nnU-Net's planner writes them, for a three-stage network on 32 x 32 pixels."""
    stages = 3
    kwargs = {
        "n_stages": stages,
        "features_per_stage": [4, 8, 8],
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "kernel_sizes": [[3, 3]] * stages,
        "strides": [[1, 1], [2, 2], [2, 2]],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True, "negative_slope": 0.02},
    }
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 32],
        "median_image_size_in_voxels": [32, 32],
        "spacing": [0.9, 0.9],
        "normalization_schemes": ["NoNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    return {
        "dataset_name": "Dataset001_MSLesionsFLAIR",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"2d": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {},
    }


def write_checkpoints(folder, plans, labels, folds):
    """What the trainer leaves behind: untrained networks, whose norms are not those of an untrained one."""
    (folder / "plans.json").write_text(json.dumps(plans))
    description = {
        "channel_names": {"0": "noNorm"},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    checkpoints = {}
    for fold in range(folds):
        torch.manual_seed(3 + fold)
        arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
        network = plain_conv_unet(arguments, 1, len(labels))
        for name, value in network.named_parameters():
            if ".norm." in name:
                torch.nn.init.normal_(value, mean=float(name.endswith("weight")), std=0.3)
        checkpoint = {
            "averaged_weights": network.state_dict(),
            "init_args": {"configuration": "2d"},
            "inference_allowed_mirroring_axes": (1,),
            "current_epoch": 1,
        }
        path = folder / f"fold_{fold}" / "checkpoint_best.pth"
        path.parent.mkdir()
        torch.save(checkpoint, path)
        checkpoints[f"fold_{fold}"] = path
    return checkpoints


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory, tiny_plans):
    labels = {"background": 0, "lesion": 1}
    return write_checkpoints(tmp_path_factory.mktemp("results"), tiny_plans, labels, folds=2)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, tiny_recipe, tiny_checkpoints):
    """Folder of a bundle of two folds that loads; tests that damage it copy it first."""
    out = tmp_path_factory.mktemp("bundles")
    return promote(tiny_checkpoints, tiny_recipe, out, brain=None, training={"seed": 1})


@pytest.fixture(scope="session")
def tiny_brain(tmp_path_factory, tiny_recipe, tiny_plans):
    """The bundle of a network that finds brain and ventricles."""
    labels = {"background": 0, "brain": 1, "ventricles": 2}
    checkpoints = write_checkpoints(tmp_path_factory.mktemp("results"), tiny_plans, labels, folds=1)
    bundle = tiny_recipe.bundle.model_copy(update={"name": "tiny-brain"})
    recipe = tiny_recipe.model_copy(update={"preprocess": "brain2d-v1", "bundle": bundle})
    return promote(checkpoints, recipe, tmp_path_factory.mktemp("bundles"), brain=None, training={})


@pytest.fixture(scope="session")
def stripping_recipe(tiny_recipe):
    return tiny_recipe.model_copy(update={"preprocess": "flair2d-brain-v1"})


@pytest.fixture(scope="session")
def stripping_bundle(tmp_path_factory, stripping_recipe, tiny_checkpoints, tiny_brain):
    """A bundle with a brain network in it."""
    out = tmp_path_factory.mktemp("bundles")
    return promote(tiny_checkpoints, stripping_recipe, out, brain=tiny_brain, training={})
