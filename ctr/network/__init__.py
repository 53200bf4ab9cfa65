"""Pure maths in plain PyTorch: embedding, gate, backbone, from ids to logits.

Modules here see tensors only, and change nothing in `forward`. They
know nothing of datasets, files, devices and steps.
"""
