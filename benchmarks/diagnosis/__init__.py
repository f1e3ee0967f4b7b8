"""The fault zoo: healthy checkpoints, planted faults, and what the rules say about both.

    python -m benchmarks.diagnosis FOLDER [--seeds 10] [--only NAME] [--parts clean,faults] ...

Trains the families of :mod:`benchmarks.diagnosis.families` into FOLDER (seconds each; what is
there is kept), judges every healthy checkpoint by itself, against the epoch before, and as a
series, plants graded faults in copies and judges those in the same three modes.  Results go line by
line to FOLDER/results.jsonl, so that an interrupted run goes on where it stopped; the tables are
printed from it.

Some families tune: limits may be chosen while looking at them.  Others only measure, and when a
rule is changed after a look at one, it is *seen* from then on.  Which is which stands in the family
and goes no other way.  A rule may say *likely* when its false-alarm rate per healthy case has an
upper 95 % bound below 1 % on the families that measure (on the seen ones, where those are few).

``healthy.sha256`` lists the healthy files behind the rates that the rules state; on another
processor training rounds otherwise, and the files are others of the same families.
"""
