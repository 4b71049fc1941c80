"""The loop that sees a sweep through on SLURM: each turn compares the store with the queue and does what is missing."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from attnbench.engine._division import shards
from attnbench.engine._queue import Job, QueueSnapshot, ask, largest_array
from attnbench.engine._records import sweep_scratch
from attnbench.engine._submission import Request, Submission, prepare, snapshot, submissions, submit
from attnbench.engine._upkeep import Deaf, Waiting, avoiding, last_words, refusal, shortage, sweep_away, unneeded
from attnbench.engine._verdict import passing
from attnbench.engine.progress import Progress
from attnbench.engine.shard import Event
from attnbench.engine.store import Evidence, Store
from attnbench.manifest import Cell

TRIES = 5  # submissions again, in a row, without a cell that ended, before the controller gives up
SETTLED = 2  # snapshots in a row without its job before a cell counts as lost: a requeue has gaps
PATIENCE_S = 60.0  # a busy scheduler may take long to answer
SILENT = "SLURM does not answer. Its jobs go on, and this waits."
UNBOUNDED = 2**31
LINGER_S = 30.0  # how long a job may take to end after its last cell
RELEASED_S = 120.0  # a restarted scheduler may have forgotten for so long that jobs were let go


class Controller:
    """The loop's memory, none of which is needed to begin again: what it has seen, and how often it tried.

    open: cells that have not ended.
    submitted: the last turn left nothing to submit or release. given_up: why, if it did. waits_for: what it last did.
    """

    def __init__(
        self, store: Store, cells: Sequence[Cell], request: Request, *, progress: Progress, note: Callable[[str], None]
    ) -> None:
        self.open = {cell.id: cell for cell in cells}
        self._cells, self._ends = dict(self.open), dict[str, str]()  # all cells; how those that ended did
        self.submitted = False
        self.given_up = self.waits_for = ""
        self._store, self._request, self._progress, self._say = store, request, progress, note
        self._begun = False
        self._tries = -1  # the first submission is no repetition
        self._not_before = 0.0  # monotonic time of the next submission
        self._told: set[str] = set()  # cells whose start was shown, and sentences
        self._watched: set[str] = set()  # cells that have been in the queue
        self._absent: Counter[str] = Counter()  # snapshots in a row that did not show a cell
        self._live: set[str] = set()  # jobs that have been seen alive
        self._dropped: set[str] = set()  # jobs that this controller cancelled
        self._cancelled: set[str] = set()  # cells whose job somebody cancelled meanwhile
        self._refusal = ""  # sbatch's last words
        self._most = UNBOUNDED  # tasks that one array may have, as far as the queue had room
        self._deaf, self._waiting = Deaf(), Waiting()
        self._finished: list[str] = []  # cells that ended under its eyes
        self._free: set[str] = set()  # jobs that have been seen released
        self._sent_away = 0  # attempts that were preempted or met a time limit

    @property
    def counts(self) -> Counter[str]:
        """How the cells that have ended did, in the words of `Supervisor.run`."""
        return Counter(word for id, word in self._ends.items() if id not in self.open)

    def turn(self) -> bool:
        """Looks at the store and the queue once and does what is missing; True when there is nothing more to do.

        Raises ValueError when SLURM refuses the first submission, OSError when the store cannot be used for a lasting
        reason.
        """
        try:
            return self._turn()
        except OSError as error:
            if not passing(error):
                raise
            self._wait(f"The store cannot be written ({error}); this waits.")
            return False

    def _turn(self) -> bool:
        evidence = self._harvest()
        if not self.open:  # since a cell ended its row may have been damaged, or somebody may have opened it again
            self.open = {id: self._cells[id] for id in self._store.unfinished(self._cells)}
            evidence = self._harvest()
        if not self.open:
            self._recount()
            return True
        if (seen := snapshot(self._store.root, timeout_s=PATIENCE_S)) is None:
            self._wait(SILENT)
            return False
        self._follow(seen)
        self._end_deaf(seen, evidence)
        due, covered = self._due(seen, evidence), seen.cells.keys() & self.open.keys()
        if due and self._tries >= TRIES and not covered:
            told = last_words(self._store.root, self._refusal)
            self.give_up(f"{TRIES} submissions in a row ended without a finished cell{told}")
        elif due and time.monotonic() >= self._not_before:
            self._submit(due, evidence, patient=bool(covered))
            if seen := snapshot(self._store.root, timeout_s=PATIENCE_S):
                self._follow(seen)  # so that a job which a person cancels from now on is known
        elif self._cancelled.issuperset(self.open) and not covered:
            self.give_up("their jobs were cancelled")
        self.submitted = self.release(seen) and self._watched.issuperset(self.open)
        return bool(self.given_up)

    def give_up(self, why: str) -> None:
        """Ends the loop with a reason."""
        self.given_up = f"{len(self.open)} cells are given up: {why}."

    def release(self, seen: QueueSnapshot | None) -> bool:
        """Sees submissions through whose controller stopped between sbatch and release, this one's too.

        One that nobody needs any more is cancelled, and so are jobs that SLURM has given up. False: it did not work,
        or the scheduler does not answer.
        """
        if seen is None:
            return False
        known = submissions(self._store.root)
        live = [job for job in seen.jobs if job.live and job.nonce in known]
        if stuck := [job for job in live if job.stuck]:
            self._drop(stuck)
        covered = {cell for job in live if known[job.nonce].released for cell in seen.shards[job.id]}
        done = self._release_again([job for job in live if known[job.nonce].released], known)
        for nonce in sorted({job.nonce for job in live if not known[job.nonce].released}):
            jobs = [job for job in live if job.nonce == nonce]
            cells = {cell for job in jobs for cell in seen.shards[job.id]} - covered
            if known[nonce].pickles and any(cell.status is None for cell in self._store.scan(cells).values()):
                done &= known[nonce].complete(jobs)
                covered |= cells
            else:
                done &= self._drop(jobs)
        return done

    def _drop(self, jobs: Sequence[Job]) -> bool:
        """Cancels jobs that lead nowhere; False when SLURM does not do it."""
        self._dropped.update(id for job in jobs for id in (job.id, job.array))
        for job in jobs:
            self._home(job).drop(job)
        return ask("scancel", *(job.id for job in jobs)) is not None

    def _home(self, job: Job) -> Submission:
        return Submission(self._store.root / "submissions" / job.nonce)

    def see_off(self) -> None:
        """Waits for the jobs of cells that have ended, and cancels those that do not end by themselves.

        A job can outlive its work: one that waits with cells that another job has done, one whose daemon was killed.
        """
        with suppress(OSError):  # what is left over harms nothing
            sweep_away(self._store.root)
            sweep_scratch()
            for id in self._finished:
                self._store.clean(id)
        end = time.monotonic() + LINGER_S
        while time.monotonic() < end + LINGER_S:
            if (seen := snapshot(self._store.root)) is not None:
                if not (left := unneeded(self._store, seen)):
                    return
                late = [job.id for job in left if job.state == "PENDING" or time.monotonic() > end]
                if late and ask("scancel", *late) is None:
                    return
            time.sleep(min(1.0, self._request.site.poll_s))

    def _release_again(self, live: Sequence[Job], known: Mapping[str, Submission]) -> bool:
        """Lets jobs go that are held although they were released: a scheduler that was killed forgets its last seconds.

        What was seen released before and is held later was held by a person, and stays so.
        """
        held = [job for job in live if job.held]
        self._free.update(job.id for job in live if not job.held)
        mine = [job.id for job in held if job.id not in self._free or known[job.nonce].released_s < RELEASED_S]
        return not mine or ask("scontrol", "release", *mine) is not None

    def _end_deaf(self, seen: QueueSnapshot, evidence: Mapping[str, Evidence]) -> None:
        """Cancels jobs that SLURM calls running although their supervisor is gone or stopped, so others can follow."""
        if (deaf := self._deaf.jobs(seen, evidence)) and not shortage(self._store.root, 0):
            self._note(
                f"No sign of life from {', '.join(job.detail for job in deaf)}; cancelled, to be submitted again."
            )
            self._drop(deaf)

    def _harvest(self) -> Mapping[str, Evidence]:
        """Takes the cells that have ended off the list; returns what is known of the others."""
        evidence = self._store.scan(self.open)
        for id, known in evidence.items():
            if known.status or known.failed:
                del self.open[id]
                self._tries = -1
                self._ended(known)
            elif known.live and id not in self._told:
                self._told.add(id)
                self._progress.watch(Event(kind="start", id=id))
        gone = [info.end for known in evidence.values() for info in known.attempts if info.end]
        away = sum(end["outcome"] in ("preempted", "time limit") for end in gone)
        if away > self._sent_away:
            self._tries = min(self._tries, 0)  # to be sent away is no fault of the jobs
        self._sent_away = away
        self._begun = True
        self._progress.refresh()
        return {id: evidence[id] for id in self.open}

    def _ended(self, known: Evidence) -> None:
        """Counts and shows a cell that has its row or is set aside; what had ended before we came is skipped."""
        if self._begun or known.left:
            self._finished.append(known.id)
        outcome = "failed" if known.failed else known.status if self._begun else "done"
        assert outcome is not None
        self._ends[known.id] = outcome
        message = str(known.failed.get("message")) if known.failed else None
        kind = "end" if self._begun else "skip"
        self._progress.watch(Event(kind=kind, id=known.id, outcome=outcome, wall_s=known.wall_s, message=message))

    def _recount(self) -> None:
        """Cells that were set aside under our eyes may have been opened again and made by another sweep since."""
        for id, known in self._store.scan(id for id, end in self._ends.items() if end == "failed").items():
            self._ends[id] = known.status or self._ends[id]

    def _follow(self, seen: QueueSnapshot) -> None:
        """Remembers which jobs live, and notices those that were cancelled while we looked on."""
        ended = [job for job in seen.jobs if job.state == "CANCELLED" and job.id in self._live]
        for job in (*ended, *self._waiting.cancelled(seen, self._store.root)):
            if job.id not in self._dropped and not self._home(job).dropped(job):
                self._cancelled.update(self._home(job).cells(job))
        self._live.update(id for job in seen.jobs if job.live for id in (job.id, job.array))

    def _due(self, seen: QueueSnapshot, evidence: Mapping[str, Evidence]) -> list[Cell]:
        """Open cells that no job and no live attempt covers, nor has for a while if one ever did."""
        for id in self.open:
            if id in seen.cells or evidence[id].live:
                self._watched.add(id)
                self._absent[id] = 0
            else:
                self._absent[id] += 1
        lost = (id for id in self.open if self._absent[id] >= (SETTLED if id in self._watched else 1))
        return [self.open[id] for id in lost if id not in self._cancelled]

    def _submit(self, cells: Sequence[Cell], evidence: Mapping[str, Evidence], *, patient: bool) -> None:
        """One array for the training cells and one for those that run alone, more where the site's arrays are short."""
        if why := shortage(self._store.root, len(cells)):
            return self._wait(why)
        if (size := largest_array()) is None:
            return self._wait(SILENT)
        size = min(size, self._most)
        asked, avoided = avoiding(self._request, [evidence[cell.id] for cell in cells])
        if avoided:
            self._note(f"Attempts were lost twice on {', '.join(avoided)}, so jobs go to other nodes.")
        self._tries += 1
        self._not_before = time.monotonic() + self._request.site.poll_s * 2 ** min(self._tries, TRIES)
        self._watched.update(cell.id for cell in cells)
        resources = self._request.resources
        for kind in ("train", "cost"):
            mine = [cell for cell in cells if (cell.kind == "train") == (kind == "train")]
            request = replace(asked, resources=resources if kind == "train" else replace(resources, nodes=1))
            divided = shards(mine, hours=resources.hours, parallel=resources.parallel, each=request.resources.nodes > 1)
            alone = kind == "cost" and not request.site.shared_timing
            for start in range(0, len(divided), size):
                submission = prepare(self._store.root, divided[start : start + size], request)
                if not self._sbatch(submission, request, alone=alone, patient=patient):
                    return None
                patient = True  # what was taken is not to be left behind for a later refusal
        return None

    def _sbatch(self, submission: Submission, request: Request, *, alone: bool, patient: bool) -> bool:
        """Runs sbatch; False when the queue is full, so that the rest has to wait.

        An error that leaves open whether the jobs were taken is settled by later looks at the queue.
        Raises ValueError for a clear refusal, unless `patient`: while jobs of ours live, a full queue will empty.
        """
        tasks = len(submission.shards)
        try:
            submit(submission, request, alone=alone)
            self._most = max(self._most, 2 * tasks)
        except (RuntimeError, OSError) as error:  # submitit's own errors are RuntimeErrors
            lines = [line for line in str(error).splitlines() if "error" in line]
            self._refusal = (lines or [str(error)])[-1].strip()
            meant = refusal(str(error))
            if meant != "unsure":
                shutil.rmtree(submission.folder)
            if meant == "full":
                self._most, self._tries = max(1, tasks // 2), self._tries - 1
                self._wait(f"SLURM takes no more jobs now ({self._refusal}); the rest follows as others end.")
                return False
            if meant == "clear":
                if not patient:
                    raise ValueError(f"SLURM refused the jobs: {self._refusal}") from error
                self._note(f"SLURM refused some jobs ({self._refusal}); they are tried again while others run.")
            else:
                self._note(f"sbatch failed ({self._refusal}); the queue will show whether the jobs were taken.")
        return True

    def _wait(self, why: str) -> None:
        """Says for what the loop waits."""
        self.waits_for = why
        self._note(why)

    def _note(self, sentence: str) -> None:
        """One sentence for people, said once."""
        if sentence not in self._told:
            self._told.add(sentence)
            self._say(sentence)
