/**
 * A hook for React on supabase/client/callme.ts, to copy beside it.
 *
 *   const callme = createCallme<Models>(supabase); // once, outside of components
 *
 *   function Painter({ file }: { file: File }) {
 *     const { row, error, run } = useCallme(callme, "sketch2real");
 *     return <button onClick={() => run({ image: file })}>{row?.progress ?? "Paint"}</button>;
 *   }
 */

import { useCallback, useEffect, useRef, useState } from "react";
import type { CallmeError, createCallme, Prediction } from "./callme.ts";
import type { Models } from "./models.ts"; // callme supabase types -o models.ts

/**
 * The latest row of this component's run, the error of one that failed, and how to begin one. The
 * run goes on after the component has gone; `callme.list()` finds it. With `id`, it follows that run.
 */
export function useCallme<Name extends keyof Models>(
  callme: ReturnType<typeof createCallme<Models>>,
  model: Name,
  id?: string,
) {
  type Output = Models[Name]["output"];
  const [row, setRow] = useState<Prediction<Output> | null>(null);
  const [error, setError] = useState<CallmeError | null>(null);
  const current = useRef<AbortController | null>(null);

  /** Shows one run at a time: a new one takes the place of the last. */
  const watch = useCallback(
    async (
      begin: (options: {
        onProgress: (row: Prediction<Output>) => void;
        signal: AbortSignal;
      }) => Promise<Prediction<Output>>,
    ) => {
      current.current?.abort();
      const own = current.current = new AbortController();
      const show = (next: Prediction<Output>) => own.signal.aborted || setRow(next);
      setRow(null);
      setError(null);
      try {
        show(await begin({ onProgress: show, signal: own.signal }));
      } catch (problem) {
        if (!own.signal.aborted) setError(problem as CallmeError);
      }
    },
    [],
  );

  const run = useCallback(
    (input: Models[Name]["input"]) => watch((options) => callme.run(model, input, options)),
    [callme, model, watch],
  );

  useEffect(() => {
    if (id) watch((options) => callme.follow<Output>(id, options));
    return () => current.current?.abort();
  }, [callme, id, watch]);

  return { row, error, run };
}
