/** Entry point. Everything else is in handler.ts. */

import { serve } from "../_shared/serve.ts";
import { METHODS, respond } from "./handler.ts";

serve(METHODS, respond);
