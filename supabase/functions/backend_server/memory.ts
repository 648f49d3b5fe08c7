/**
 * Who may hold how much of the worker's memory.
 *
 * Supabase gives a worker 256 MB for all its concurrent requests together, and ends it with all of
 * them when they take more. So a request takes its share before its body is read. When there is
 * no room it waits its turn, unread, and after a while it is asked to come again.
 */

import { Refusal } from "./errors.ts";

/** A share of the memory. */
export interface Lease {
  /** Fires when others wait and the holder's body has come too slowly. */
  readonly evicted: AbortSignal;
  /** So many bytes of the body have come by now. */
  arrived(bytes: number): void;
  /** The body has come: its sender delays nobody any more. */
  complete(): void;
  /** Whether there was room for so many bytes more; if so the share is larger now. */
  grow(bytes: number): boolean;
  /** Gives the share back; a second time does no harm. */
  release(): void;
}

/** What tells the time, and a signal that fires after so many milliseconds. */
export interface Clock {
  now(): number;
  after(ms: number): AbortSignal;
}

const MAX_WAITING = 64;
const WAIT_MS = 15_000;
const RETRY_AFTER_S = 5;
/** Who has had this long and sent less than this makes room for those who wait. */
const SLOW_AFTER_MS = 5000;
const SLOW_BYTES_PER_S = 64 * 1024;

interface Holder {
  sinceMs: number;
  arrived: number;
  isReading: boolean;
  evict: AbortController;
}

interface Waiting {
  bytes: number;
  admit(): void;
}

/** `total` bytes, given out in the order in which they are asked for. */
export class Memory {
  readonly #total: number;
  readonly #clock: Clock;
  readonly #holders = new Set<Holder>();
  readonly #waiting: Waiting[] = [];
  #used = 0;

  constructor(total: number, clock: Clock) {
    this.#total = total;
    this.#clock = clock;
  }

  /**
   * A share of `bytes`; one larger than the whole is given when nobody holds any. Throws
   * `service_unavailable` when too many wait or the turn does not come, and
   * `client_closed_request` when `gone` fires.
   */
  async take(bytes: number, gone: AbortSignal): Promise<Lease> {
    const lease = this.#waiting.length === 0 ? this.tryTake(bytes) : null;
    if (lease !== null) return lease;
    if (this.#waiting.length >= MAX_WAITING) throw busy();
    this.#evictSlow();
    return await this.#turn(bytes, gone);
  }

  /** A share of `bytes`, or null if there is no room now. */
  tryTake(bytes: number): Lease | null {
    return this.#fits(bytes) ? this.#grant(bytes) : null;
  }

  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#total;
  }

  #grant(bytes: number): Lease {
    const evict = new AbortController();
    const holder: Holder = { sinceMs: this.#clock.now(), arrived: 0, isReading: true, evict };
    let held = bytes;
    this.#holders.add(holder);
    this.#used += bytes;
    return {
      evicted: evict.signal,
      arrived: (count) => void (holder.arrived = count),
      complete: () => void (holder.isReading = false),
      grow: (more) => {
        if (!this.#fits(more)) return false;
        this.#used += more;
        held += more;
        return true;
      },
      release: () => {
        if (!this.#holders.delete(holder)) return;
        this.#used -= held;
        this.#admit();
      },
    };
  }

  #turn(bytes: number, gone: AbortSignal): Promise<Lease> {
    const late = this.#clock.after(WAIT_MS);
    const given = AbortSignal.any([gone, late]);
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        reject(gone.aborted ? closed() : busy());
        this.#admit(); // who came after may need less
      };
      const admit = () => {
        given.removeEventListener("abort", leave);
        resolve(this.#grant(bytes));
      };
      const waiting: Waiting = { bytes, admit };
      this.#waiting.push(waiting);
      if (given.aborted) leave();
      else given.addEventListener("abort", leave, { once: true });
    });
  }

  /** Only the first in the queue is looked at, so that small shares never starve a large one. */
  #admit(): void {
    while (this.#waiting.length > 0 && this.#fits(this.#waiting[0]!.bytes)) {
      this.#waiting.shift()!.admit();
    }
  }

  #evictSlow(): void {
    for (const { sinceMs, arrived, isReading, evict } of this.#holders) {
      const ageMs = this.#clock.now() - sinceMs;
      const isSlow = ageMs > SLOW_AFTER_MS && arrived < (ageMs / 1000) * SLOW_BYTES_PER_S;
      if (isReading && isSlow) evict.abort();
    }
  }
}

function busy(): Refusal {
  const message = "Cannot take the request now: too many large ones are on their way";
  return new Refusal("service_unavailable", message, { retryAfter: String(RETRY_AFTER_S) });
}

function closed(): Refusal {
  return new Refusal("client_closed_request", "the caller hung up");
}

const MIB = 1024 * 1024;
// Deno itself has 60 to 90 MB, and what is given back is garbage for a while before it is free:
// the sum was found by measuring (bench/edge_bodies.py).
const LARGE_TOTAL = 32 * MIB, SMALL_TOTAL = 12 * MIB, ANSWER_TOTAL = 24 * MIB;
/** Up to this size a body never waits behind large ones. */
const SMALL_BYTES = 256 * 1024;

/** The worker's memory by what it holds: a poll for a result never waits for uploads. */
export interface Room {
  /** Where a body of so many bytes belongs. */
  forBody(bytes: number): Memory;
  answers: Memory;
}

/** All of it free. */
export function createRoom(clock: Clock): Room {
  const [large, small, answers] = [LARGE_TOTAL, SMALL_TOTAL, ANSWER_TOTAL]
    .map((total) => new Memory(total, clock)) as [Memory, Memory, Memory];
  return { forBody: (bytes) => bytes > SMALL_BYTES ? large : small, answers };
}
