# SPDX-License-Identifier: MIT
"""Lets ONNX's own checker look at every model of a folder: python3 check.py FOLDER"""
import json
import os
import sys

import onnx

folder = sys.argv[1]
with open(os.path.join(folder, "models.json")) as file:
    names = [model["file"] for model in json.load(file)["models"]]
for name in names:
    model = onnx.load(os.path.join(folder, name))
    # With the shapes and types of everything in between.
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert model.producer_name == "stochastic_depth", model.producer_name
    assert [opset.version for opset in model.opset_import] == [17]
    unknown = {entry.key for entry in model.metadata_props} - {
        "survival_probabilities", "survival_mask", "weight_scaling"}
    assert not unknown, unknown
assert names
print(len(names), "models checked by onnx", onnx.__version__)
