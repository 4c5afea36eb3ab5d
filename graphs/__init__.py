"""graphs: the evidence beside a trace, and all drawing.

What the real program did (recordings), what its source says (the index), and how a trace
of the model compares with both. Knows `tracer`, not `hypervisor`.
"""
