"""Experiments with the user's own task, to find out whether it was the checkpoint.

============================================  ==================================================
task, adapters, machine, batches, evaluate    the user's code, held to its protocol
case, ladder, explanation                     what is asked, in which order, and the answer
bisect                                        the first bad checkpoint of a run
environment, gap, restoring, gradients,       a question each, from cheap to dear
knockout, features, retraining
search, exchanges, displacement, bounce       what the restore scan goes by
measuring, statistics, stopping, blame        losses, and what may be concluded from them
arms, design, shams, loss_weights             what is trained, as a user declares it
loading, resume, dynamics, trials, trainings  one training, as a trainer would go on, and many
engines, ranks                                where they run
============================================  ==================================================
"""
