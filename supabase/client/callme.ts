/**
 * Runs models on the GPU box through the app's own Supabase project. Takes the app's client of
 * supabase-js, whose user must be signed in. docs/supabase.md explains the row.
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

/** Inputs and output of each model, for `createCallme<…>`. */
export type Models = Record<string, { input: Record<string, unknown>; output: unknown }>;

export interface Options<Output> {
  /** The same key never makes a second prediction. Keep it to repeat a run after a reload. */
  key?: string;
  onProgress?: (row: Prediction<Output>) => void;
  /** Stops following, and does not cancel. */
  signal?: AbortSignal;
}

/** A run that did not succeed. `code` is the box's or the function's. */
export class CallmeError extends Error {
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

// deno-lint-ignore no-explicit-any
type SupabaseClient = any; // any version of supabase-js, which is the app's own

// deno-lint-ignore explicit-module-boundary-types
export function createCallme<M extends Models>(supabase: SupabaseClient, { pollMs = 4000 } = {}) {
  const wake = new Set<() => void>();
  let channel: unknown;

  const user = async () => (await supabase.auth.getSession()).data.session?.user?.id as string;

  async function call(path: string, options: object): Promise<Prediction> {
    const { data, error } = await supabase.functions.invoke(`predictions${path}`, options);
    if (!error) return data;
    const said = (await error.context?.json?.().catch(() => null))?.error ?? {};
    throw new CallmeError(said.code ?? "unreachable", said.message ?? error.message);
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

  /** A URL of a file in an output, for an hour. */
  async function url(reference: string, seconds = 3600): Promise<string> {
    const [, bucket, path] = /^storage:\/\/([^/]+)\/(.+)$/.exec(reference) ?? [];
    const { data, error } = await supabase.storage.from(bucket).createSignedUrl(path, seconds);
    if (error) throw new CallmeError("not_found", error.message);
    return data.signedUrl;
  }

  const table = () => supabase.schema("callme").from("predictions").select("*");

  async function find(id: string): Promise<Prediction | undefined> {
    return (await table().eq("id", id)).data?.[0];
  }

  /** Realtime only says that something has changed, and may be silent: rows are read again. */
  async function listen(): Promise<void> {
    if (channel) return;
    channel = supabase.channel(`callme:user:${await user()}`, { config: { private: true } })
      .on("broadcast", { event: "prediction" }, () => wake.forEach((one) => one()));
    await supabase.realtime.setAuth();
    (channel as SupabaseClient).subscribe(() => wake.forEach((one) => one()));
  }

  /** The prediction at its end, also one that an earlier page began. Throws CallmeError. */
  async function follow<Output>(
    id: string,
    { onProgress, signal }: Options<Output> = {},
  ): Promise<Prediction<Output>> {
    await listen().catch(() => {});
    for (let seen = 0;;) {
      signal?.throwIfAborted();
      const row = await find(id) as Prediction<Output> | undefined;
      if (row && row.version > seen) {
        seen = row.version;
        if (row.status === "succeeded") return row;
        if (row.status === "failed" || row.status === "canceled") {
          throw new CallmeError(row.error_code ?? row.status, row.error ?? row.status);
        }
        onProgress?.(row);
      }
      await new Promise<void>((resolve) => {
        const done = () => (clearTimeout(timer), wake.delete(done), resolve());
        const timer = setTimeout(done, pollMs);
        wake.add(done);
        signal?.addEventListener("abort", done, { once: true });
      });
      // The box was away when it was made.
      if (row?.key && !row.sent_at && row.status === "starting") {
        const { model, input, key } = row;
        await call("", { body: { model, input, key } }).catch(() => {});
      }
    }
  }

  /** Runs a model. Files among the inputs are uploaded. Throws CallmeError when it fails. */
  async function run<Name extends keyof M & string>(
    model: Name,
    input: M[Name]["input"],
    options: Options<M[Name]["output"]> = {},
  ): Promise<Prediction<M[Name]["output"]>> {
    const entries = Object.entries(input).map(async ([name, value]) =>
      [name, value instanceof Blob ? await upload(value) : value] as const
    );
    const body = {
      model,
      input: Object.fromEntries(await Promise.all(entries)),
      key: options.key ?? crypto.randomUUID(),
    };
    return await follow((await call("", { body })).id, options);
  }

  return {
    run,
    follow,
    upload,
    url,
    cancel: (id: string) => call(`/${id}`, { method: "DELETE" }),
    forget: (id: string) => call(`/${id}?forget=true`, { method: "DELETE" }),
    /** The user's own predictions, newest first. */
    list: async (count = 20): Promise<Prediction[]> =>
      (await table().order("created_at", { ascending: false }).limit(count)).data ?? [],
  };
}
