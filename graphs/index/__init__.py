"""The source index: real C read with libclang into one file that says who calls whom, and why.

In the order in which a file goes through them:

    profile, builtin, locate    what to read, with which arguments
    clang, parse, precompiled   libclang; parsing, ahead of time where it is safe
    tree, places, symbols       one declaration's nodes; where they stand; what they name
    walk, bodies, values,
    initialisers                a translation unit's facts
    facts, merge                their form; all units as one body
    flow, resolve               where function values go; calls to edges with evidence
    store, build, spread        the SQLite file; making and renewing it, in several processes
    query, symbolic, whole      questions about functions, symbols, the whole graph
    macro_places                macros in the sources' text
    tiers, check                wider tiers of targets; the graph held against recordings
    explain, export, api        in words, as pictures and files, as a networkx graph
"""
