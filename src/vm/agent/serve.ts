import type { Duplex } from 'node:stream';
import { BerthError, kindOf, messageOf } from '../../errors.ts';
import { runMux } from '../channel/run-mux.ts';
import type { Method } from '../protocol/messages.ts';
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
    const { method, params } = callIn(message, handlers);
    // Up to the handler's first wait nothing is awaited, which the handlers of streams rely on.
    const result = await handlers[method](params, mux);
    return { method, response: { result } };
  } catch (e: unknown) {
    return { response: { error: { kind: kindOf(e), message: messageOf(e) } } };
  }
}

/**
 * The host has checked what it sends, and may do with this machine what it likes: to check that again would cost a tenth
 * of the time in which the machine boots.
 */
function callIn(message: unknown, handlers: Handlers): { method: Method; params: never } {
  const { method, params } = Object(message);
  if (!Object.hasOwn(handlers, method)) throw new BerthError('unimplemented', `no method "${method}"`);
  return { method, params: params as never };
}

function respond(mux: Mux, id: number, response: object): void {
  try {
    mux.respond(id, response);
  } catch (e: unknown) {
    mux.respond(id, { error: { kind: 'exhausted', message: messageOf(e) } });
  }
}
