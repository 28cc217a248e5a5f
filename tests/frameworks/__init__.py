"""Frameworks that do not install beside ours: each in a virtual environment of its own.

A script here, such as ``mlx_image.py``, runs in ``.venv-FRAMEWORK``, which ``make test-frameworks``
makes. It imports its framework, numpy and :mod:`tests.frameworks.drawn`, nothing else of this
project, and does two things for a network that ``drawn`` names:

- ``record NETWORK FILE LOGITS`` builds it by the framework's own code, draws its weights, has the
  framework save them, and runs it on the images of ``drawn``;
- ``run NETWORK FILE LOGITS`` builds it, loads a file that ``--to`` wrote, as strictly as the
  framework can, and runs it on the same images; ``train``, where a script has it, does so in
  training mode.

For what transformers saves beside that (``Framework.others``), the FILE says in which form.

The small networks are recorded once (``python -m tests.frameworks.recording FRAMEWORK``) and lie in
``tests/recorded/``, so that the ordinary tests convert what the real frameworks wrote and agree
with what they computed. ``make test-frameworks`` does both again, in both directions and at real
sizes, with today's code. A new framework is a script, a row of ``FRAMEWORKS`` in
:mod:`tests.frameworks.environments` and an environment in the Makefile.
"""
