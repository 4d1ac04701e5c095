import type { Duplex } from 'node:stream';
import { BerthError, kindOf, messageOf } from '../../errors.ts';
import { runMux } from '../channel/run-mux.ts';
import { checkParams, isMethod, type Method, requestShape } from '../protocol/messages.ts';
import type { Mux } from '../protocol/mux.ts';
import type { Handlers } from './agent.ts';

/** A connection of the host's. */
export interface Serving {
  mux: Mux;
  /** Resolves when the host has gone. */
  ended: Promise<void>;
}

/**
 * Answers the host's calls over one connection; each is carried out beside the others, so that none waits for a
 * container that hangs.
 *
 * @param answered is told of each call that was answered
 */
export function serve(transport: Duplex, handlers: Handlers, answered: (method: Method) => void): Serving {
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  const mux = runMux(
    transport,
    {
      request: (id, message) => {
        void carryOut(handlers, message, mux).then(({ method, response }) => {
          respond(mux, id, response);
          if (method !== undefined) answered(method);
        });
      },
    },
    () => resolve(),
  );
  return { mux, ended };
}

async function carryOut(
  handlers: Handlers,
  message: unknown,
  mux: Mux,
): Promise<{ method?: Method; response: object }> {
  try {
    const { method, params } = requestShape.parse(message);
    if (!isMethod(method)) throw new BerthError('unimplemented', `no method "${method}"`);
    return { method, response: { result: await call(handlers, method, params, mux) } };
  } catch (e: unknown) {
    return { response: { error: { kind: kindOf(e), message: messageOf(e) } } };
  }
}

/** Up to the handler's first wait nothing is awaited, which the handlers of streams rely on. */
function call<M extends Method>(handlers: Handlers, method: M, params: unknown, mux: Mux): unknown {
  let checked: Parameters<Handlers[M]>[0];
  try {
    checked = checkParams(method, params);
  } catch (e: unknown) {
    throw new BerthError('invalid', messageOf(e), { cause: e });
  }
  return handlers[method](checked, mux);
}

function respond(mux: Mux, id: number, response: object): void {
  try {
    mux.respond(id, response);
  } catch (e: unknown) {
    mux.respond(id, { error: { kind: 'exhausted', message: messageOf(e) } });
  }
}
