// The files of a run, kept in this browser so that a reload or a later visit shows them beside the
// result. The box deletes them when the run ends. Secrets are never kept.

const NAME = "callme";
const STORE = "inputs";
const KEPT = 30; // runs
const MOST_BYTES = 40 << 20; // of one run

function open() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open(NAME, 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: "id" }).createIndex("at", "at");
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

function ended(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Keep `files` ({input: [File]}) of a prediction. A browser that keeps nothing is no error. */
export async function keep(id, files) {
  const size = Object.values(files).flat().reduce((sum, f) => sum + (f.size ?? 0), 0);
  if (!Object.keys(files).length || size > MOST_BYTES) return;
  try {
    const database = await open();
    const store = database.transaction(STORE, "readwrite").objectStore(STORE);
    await ended(store.put({ id, files, at: Date.now() }));
    const ids = await ended(store.index("at").getAllKeys());
    for (const old of ids.slice(0, -KEPT)) store.delete(old);
    database.close();
  } catch {
    // private windows may refuse; the run itself is on the box
  }
}

/** The files of a prediction, {} when they are not here. */
export async function kept(id) {
  try {
    const database = await open();
    const found = await ended(database.transaction(STORE).objectStore(STORE).get(id));
    database.close();
    return found?.files ?? {};
  } catch {
    return {};
  }
}

/** Forget the files of a prediction: it was deleted. */
export async function forget(id) {
  try {
    const database = await open();
    await ended(database.transaction(STORE, "readwrite").objectStore(STORE).delete(id));
    database.close();
  } catch {
    // there was nothing
  }
}

/** Forget all files: when the key is forgotten. */
export function forgetAll() {
  try {
    indexedDB.deleteDatabase(NAME);
  } catch {
    // there was nothing
  }
}
