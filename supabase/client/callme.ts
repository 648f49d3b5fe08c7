/**
 * Runs models on the GPU box through the app's own Supabase project. Takes the app's client of
 * supabase-js, whose user must be signed in. docs/supabase/row.md explains it.
 *
 *   const callme = createCallme(supabase);
 *   const { output } = await callme.run("sketch2real", { image: file }, { onProgress });
 */

/** A row of callme.predictions. */
export interface Prediction<Output = unknown> {
  id: string;
  key: string | null;
  model: string;
  input: Record<string, unknown>;
  status: "starting" | "processing" | "succeeded" | "failed" | "canceled";
  progress: number | null;
  log_tail: string;
  output: Output | null;
  error: string | null;
  error_code: string | null;
  metrics: Record<string, unknown>;
  created_at: string;
  sent_at: string | null;
  version: number;
}

/** A row whose run has succeeded. */
export type Succeeded<Output> = Prediction<Output> & { output: Output };

/** Inputs and output of each model; `callme supabase types` writes those of a box's models. */
export type Models = Record<string, { input: Record<string, unknown>; output: unknown }>;

export interface Options<Output> {
  /** The same key never makes a second prediction. Keep it to repeat a run after a reload. */
  key?: string;
  onProgress?: (row: Prediction<Output>) => void;
  /** Stops following, and does not cancel. */
  signal?: AbortSignal;
}

/**
 * A run that did not succeed. `code` is the box's, the function's or the database's. With
 * `unreachable` only the way there failed: the run may go on, and the same call may work later.
 */
export class CallmeError extends Error {
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

const UNREACHABLE = "unreachable";

// deno-lint-ignore no-explicit-any
type SupabaseClient = any; // any version of supabase-js, which is the app's own

// deno-lint-ignore explicit-module-boundary-types
export function createCallme<M extends Models>(
  supabase: SupabaseClient,
  { pollMs = 4000, quietMs = 20_000 } = {},
) {
  type Hear = (said?: { prediction: string; version: number }) => void;
  const listeners = new Set<Hear>();
  let owner = ""; // of `channel`
  let channel: SupabaseClient;
  let joined = false;
  let left: Promise<unknown> | undefined;

  async function user(): Promise<string> {
    const { data, error } = await supabase.auth.getSession();
    const id = data.session?.user?.id;
    if (error) throw new CallmeError(UNREACHABLE, error.message); // no new token from Auth
    if (!id) throw new CallmeError("unauthorized", "Sign in first");
    return id;
  }

  async function call(path: string, options: object): Promise<Prediction> {
    const { data, error } = await supabase.functions.invoke(`predictions${path}`, options);
    if (!error) return data;
    const said = (await error.context?.json?.().catch(() => null))?.error ?? {};
    throw new CallmeError(said.code ?? UNREACHABLE, said.message ?? error.message);
  }

  /** A file's place in Storage, for an input; files in `run` are uploaded by themselves. */
  async function upload(file: Blob): Promise<string> {
    const suffix = /\.\w{1,8}$/.exec((file as File).name ?? "")?.[0] ?? "";
    const path = `${await user()}/${crypto.randomUUID()}${suffix}`;
    const contentType = file.type.split(";")[0] || "application/octet-stream";
    const { error } = await supabase.storage.from("callme-inputs").upload(path, file, {
      contentType,
    });
    if (error) throw new CallmeError("upload", error.message);
    return `storage://callme-inputs/${path}`;
  }

  function uploaded(value: unknown): unknown {
    if (Array.isArray(value)) return Promise.all(value.map(uploaded));
    return value instanceof Blob ? upload(value) : value;
  }

  /** A URL of a file in an output, for an hour. */
  async function url(reference: string, seconds = 3600): Promise<string> {
    const [, bucket, path] = /^storage:\/\/([^/]+)\/(.+)$/.exec(reference) ?? [];
    const { data, error } = await supabase.storage.from(bucket).createSignedUrl(path, seconds);
    if (error) throw new CallmeError("not_found", error.message);
    return data.signedUrl;
  }

  const table = () => supabase.schema("callme").from("predictions").select("*");

  async function read<Output>(query: PromiseLike<SupabaseClient>): Promise<Prediction<Output>[]> {
    const { data, error, status } = await query;
    if (!error) return data;
    // 400 to 407 come again each time: no right, no such schema, no such column.
    const code = status > 399 && status < 408 ? error.code ?? "unauthorized" : UNREACHABLE;
    throw new CallmeError(code, error.message);
  }

  /** Leaves Realtime. The next run joins it again. */
  function close() {
    if (channel) left = supabase.removeChannel(channel);
    channel = owner = "";
    joined = false;
  }

  /** Realtime only says that something has changed, and may be silent: rows are read again. */
  async function listen(id: string): Promise<void> {
    if (id === owner) return;
    close();
    owner = id;
    await left; // a channel that is being left cannot be joined
    await supabase.realtime.setAuth();
    if (owner !== id) return;
    const mine = channel = supabase.channel(`callme:user:${id}`, { config: { private: true } });
    mine.on("broadcast", { event: "prediction" }, (message: { payload: never }) => {
      listeners.forEach((hear) => hear(message.payload));
    }).subscribe((state: string) => {
      if (channel !== mine) return;
      joined = state === "SUBSCRIBED";
      if (state === "CLOSED") owner = ""; // after any other state it joins again by itself
      listeners.forEach((hear) => hear()); // what was said meanwhile is lost
    });
  }

  /**
   * The prediction at its end, also one that an earlier page began. Goes on while the database is
   * away. Throws CallmeError when the run fails, or the row cannot be read by this user.
   */
  async function follow<Output>(
    id: string,
    { onProgress, signal }: Options<Output> = {},
  ): Promise<Succeeded<Output>> {
    let seen = 0;
    let changed = false;
    let wake = () => {};
    const hear: Hear = (said) => {
      if (said && (said.prediction !== id || said.version <= seen)) return;
      changed = true;
      wake();
    };
    const stop = () => hear();
    listeners.add(hear);
    signal?.addEventListener("abort", stop);
    try {
      for (;;) {
        signal?.throwIfAborted();
        changed = false;
        let row: Prediction<Output> | undefined;
        try {
          listen(await user()).catch(() => owner = "");
          [row] = await read<Output>(table().eq("id", id));
          if (!row) throw new CallmeError("not_found", "No such prediction");
        } catch (error) {
          if ((error as CallmeError).code !== UNREACHABLE) throw error;
        }
        if (row && row.version > seen) {
          seen = row.version;
          if (row.status === "succeeded") return row as Succeeded<Output>;
          if (row.status === "failed" || row.status === "canceled") {
            throw new CallmeError(row.error_code ?? row.status, row.error ?? row.status);
          }
          onProgress?.(row);
        }
        // The box was away when it was made. The function takes model, input and key of it.
        if (row?.key && !row.sent_at && row.status === "starting") {
          await call("", { body: row }).catch(() => {});
        }
        if (changed) continue;
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, joined ? quietMs : pollMs);
          wake = () => (clearTimeout(timer), resolve());
        });
      }
    } finally {
      listeners.delete(hear);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** Runs a model. Files among the inputs are uploaded. Throws CallmeError when it fails. */
  async function run<Name extends keyof M & string>(
    model: Name,
    input: M[Name]["input"],
    options: Options<M[Name]["output"]> = {},
  ): Promise<Succeeded<M[Name]["output"]>> {
    const { key = crypto.randomUUID() } = options;
    if (options.key) {
      const [made] = await read(table().eq("key", key));
      if (made?.model === model) return follow(made.id, options);
    }
    const entries = Object.entries(input).map(async (
      [name, value],
    ) => [name, await uploaded(value)]);
    const body = { model, input: Object.fromEntries(await Promise.all(entries)), key };
    return follow((await call("", { body })).id, options);
  }

  return {
    run,
    follow,
    upload,
    url,
    close,
    cancel: (id: string) => call(`/${id}`, { method: "DELETE" }),
    forget: (id: string) => call(`/${id}?forget=true`, { method: "DELETE" }),
    /** The user's own predictions, newest first. Throws CallmeError. */
    list: (count = 20): Promise<Prediction[]> =>
      read(table().order("created_at", { ascending: false }).limit(count)),
  };
}
