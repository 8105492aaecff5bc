"""What workloads that run a language model share: sampling many answers, confidences over a text, multiple choice.

Not a workload. Everything here works on any :class:`harness.ports.Session`.
"""
