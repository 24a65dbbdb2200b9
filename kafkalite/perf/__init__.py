"""Measuring: what the performance tools and the benchmark share, above the client.

:mod:`.load` makes records whose checksum is known beforehand and says when each is due; :mod:`.producing`,
:mod:`.consuming` and :mod:`.end_to_end` are Kafka's three tools; :mod:`.machine` reads what processes spend;
:mod:`.rows` is the table of the benchmark and :mod:`.runner` runs it; :mod:`.studies` measures what is no
rate of a row, and :mod:`.floor` what a record's messages take by themselves.

What is moved is checked every time: a fast wrong answer is no answer.
"""
