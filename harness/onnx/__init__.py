"""ONNX models, shared by runtimes and workloads: read a graph, open a session, quantize, profile, export.

Nothing here imports onnxruntime, onnx or torch before a function needs it. Running needs the extra ``onnx`` only;
quantizing needs ``quantize``; exporting runs in whatever interpreter has torch.
"""
