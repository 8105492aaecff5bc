"""Sparse autoencoders as a library (``model``, ``training``, ``study`` ...) and as a workload."""

from harness.workloads.sparse_autoencoder.workload import SparseAutoencoderWorkload

WORKLOAD = SparseAutoencoderWorkload("sparse_autoencoder")
