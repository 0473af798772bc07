"""Run model-written Python where it can do no harm, and judge it where it cannot reach.

    pool (user's process) ── job ──▶ checker (trusted process: row's prompt and test) ── plain data ──▶ candidate
                                        └─ starts ─▶ zygote (isolated interpreter) ── fork per program ──┘

The user's process keeps the clock of last resort and kills a checker that hangs; a checker waits for its candidate up
to the deadline and has the zygote kill it.

The tree shows the wall: the files of ``inside`` are sent as source into the isolation, all of them and nothing else;
those of ``outside`` stay where the user's files are.
"""
