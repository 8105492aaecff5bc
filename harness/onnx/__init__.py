"""ONNX models, shared by runtimes and workloads: read a graph, open a session.

Nothing here imports onnxruntime, onnx or torch before a function needs it. All of it needs the
extra ``onnx`` only.
"""
