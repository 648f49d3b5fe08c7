/** The worker's memory is shared out, in order, and nobody holds it for nothing. */

import assert from "node:assert/strict";

import { Refusal } from "./errors.ts";
import { createRoom, Memory } from "./memory.ts";

const MIB = 1024 * 1024;
const NEVER = new AbortController().signal;

/** A clock that stands, and the timers that were set on it. */
function stopped() {
  const timers: AbortController[] = [];
  const clock = {
    ms: 0,
    now: () => clock.ms,
    after: () => {
      timers.push(new AbortController());
      return timers.at(-1)!.signal;
    },
  };
  return { clock, timers };
}

/** Whether a promise is settled by now. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol();
  return await Promise.race([promise.catch(() => {}), Promise.resolve(pending)]) !== pending;
}

Deno.test("shares are given in order, as long as they fit", async () => {
  const memory = new Memory(10, stopped().clock);
  const first = await memory.take(6, NEVER);
  const large = memory.take(8, NEVER);
  const small = memory.take(1, NEVER); // fits, but is not first
  assert.deepEqual([await isSettled(large), await isSettled(small)], [false, false]);
  first.release();
  first.release(); // does no harm
  (await large).release();
  await small;
  assert.equal(memory.tryTake(10), null);
  assert.notEqual(memory.tryTake(9), null);
});

Deno.test("a share larger than the whole is given alone", async () => {
  const memory = new Memory(10, stopped().clock);
  const lease = await memory.take(50, NEVER);
  assert.equal(memory.tryTake(1), null);
  lease.release();
  assert.notEqual(memory.tryTake(1), null);
});

Deno.test("who waits too long is 503 with Retry-After, and the next has his turn", async () => {
  const { clock, timers } = stopped();
  const memory = new Memory(10, clock);
  await memory.take(6, NEVER);
  const large = memory.take(8, NEVER);
  const small = memory.take(1, NEVER);
  timers[0]!.abort();
  await assert.rejects(large, (error: Refusal) => {
    assert.deepEqual([error.status, error.code], [503, "service_unavailable"]);
    assert.equal(error.retryAfter, "5");
    return true;
  });
  await small;
});

Deno.test("who hangs up leaves the queue", async () => {
  const memory = new Memory(10, stopped().clock);
  const first = await memory.take(10, NEVER);
  const caller = new AbortController();
  const waiting = memory.take(10, caller.signal);
  caller.abort();
  await assert.rejects(waiting, (error: Refusal) => error.code === "client_closed_request");
  await assert.rejects(memory.take(10, caller.signal), Refusal);
  first.release();
  assert.notEqual(memory.tryTake(10), null);
});

Deno.test("no more than 64 wait", async () => {
  const memory = new Memory(10, stopped().clock);
  await memory.take(10, NEVER);
  const waiting = Array.from({ length: 64 }, () => memory.take(1, NEVER));
  await assert.rejects(memory.take(1, NEVER), (error: Refusal) => error.status === 503);
  assert.equal(await isSettled(Promise.race(waiting)), false);
});

Deno.test("when somebody waits, whose body comes too slowly is asked to go", async () => {
  const { clock } = stopped();
  const memory = new Memory(40 * MIB, clock);
  const [slow, quick, whole, fresh] = [
    await memory.take(10 * MIB, NEVER),
    await memory.take(10 * MIB, NEVER),
    await memory.take(10 * MIB, NEVER),
    await memory.take(5 * MIB, NEVER),
  ];
  clock.ms = 10_000;
  slow.arrived(600 * 1024);
  quick.arrived(700 * 1024);
  whole.complete();
  fresh.release();
  const late = await memory.take(5 * MIB, NEVER);
  assert.equal(slow.evicted.aborted, false); // nobody waits
  const waiting = memory.take(10 * MIB, NEVER);
  const evicted = [slow, quick, whole, late].map((lease) => lease.evicted.aborted);
  assert.deepEqual(evicted, [true, false, false, false]);
  slow.release();
  await waiting;
});

Deno.test("a share grows while there is room", () => {
  const memory = new Memory(10, stopped().clock);
  const lease = memory.tryTake(0)!;
  assert.deepEqual([lease.grow(6), lease.grow(5), lease.grow(4)], [true, false, true]);
  assert.equal(memory.tryTake(1), null);
  lease.release();
  assert.notEqual(memory.tryTake(10), null);
});

Deno.test("small bodies never wait behind large ones", async () => {
  const room = createRoom(stopped().clock);
  for (let i = 0; i < 2; i++) await room.forBody(15 * MIB).take(15 * MIB, NEVER);
  assert.equal(room.forBody(15 * MIB).tryTake(15 * MIB), null);
  assert.notEqual(room.forBody(1000).tryTake(1000), null);
});
