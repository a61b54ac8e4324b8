"""The asynchronous rule of Santara et al. 2016 §3.1, once more, from the paper alone.

Nothing of mpilayer is used: what it records and what it simulates is held against this.
"""


def by_ticks(stipulated, extra, costs, end, cut_short):
    """Return the table of layers with a core each, looked at after every unit of time.

    ``costs`` are whole numbers of units.
    """
    n = len(stipulated)
    tables, made, busy, woken = [[] for _ in range(n)], [0] * n, [0] * n, [0] * n
    while True:
        for i in range(n):
            if busy[i]:
                continue
            newest = made[i - 1] if i else 0
            there = i == 0 or newest > 0
            done, last = len(tables[i]), (tables[i] or [-1])[-1]
            if done < stipulated[i]:
                chosen = newest if there else None
            elif newest > last and (cut_short or not woken[i]) and extra[i]:
                chosen, woken[i] = newest, extra[i] - 1
            elif woken[i]:
                chosen, woken[i] = last, woken[i] - 1
            else:
                chosen = None
            if chosen is not None:
                tables[i].append(chosen)
                busy[i] = costs[i]
        if not any(busy):
            break
        for i in range(n):
            made[i] += busy[i] == 1
            busy[i] -= busy[i] > 0
        over = [m >= s for m, s in zip(made, stipulated, strict=True)]
        if (end == "stipulated" and all(over)) or (end == "first-layer" and over[0]):
            break
    return tuple(tuple(row[:m]) for row, m in zip(tables, made, strict=True))


def demand_rule(row, starts, arrivals, stipulated, extra, cut_short=True, slack=0.0):
    """Demand that a layer has followed the rule.

    ``row`` and ``starts`` are the output that each epoch used, and when it began;
    ``arrivals`` when each output of the layer below was made; it may travel for as long
    as ``slack``.
    """
    woken = 0
    for done, (used, start) in enumerate(zip(row, starts, strict=True)):
        perhaps = sum(made <= start for made in arrivals)
        surely = sum(made + slack < start for made in arrivals)
        where = f"epoch {done + 1} of {row}, {surely} to {perhaps} had arrived"
        newer = done > 0 and used > row[done - 1]
        if done < stipulated or newer or cut_short:
            assert surely <= used <= perhaps, f"not the newest: {where}"
        if done >= stipulated:
            assert newer or woken, f"nothing woke it: {where}"
            assert cut_short or not (newer and woken), f"cut short: {where}"
            woken = extra - 1 if newer else woken - 1
