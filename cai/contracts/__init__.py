"""What goes into each stage and what comes out of it: from prompt to revision, label and reward.

For every stage: the nodes of the config that it is hashed on, the results that it reads, and the
files of its own result, none of which is read or written in any other way. The table puts them
together with what a stage costs and the function that runs it.
"""
