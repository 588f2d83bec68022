"""What the loop costs: what each task used, what that costs, and what it should not cost more than.

meter, attempts   what a job's processes use, written down while they run
prices            what machines cost, and which job has which
usage_table       every attempt of every task, priced
record            from what was written down to the table
sums, advice      by run, model, day and thousand predictions; which machines are too large
budget            what may still be spent
"""
