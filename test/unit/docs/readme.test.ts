import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { Rpc } from '../../../cri/grpc/rpc.ts';
import { imageService, runtimeService } from '../../../cri/services.ts';
import type { CallContext } from '../../../cri/unary.ts';
import { loadProtos } from '../../../proto/load.ts';
import { kindOf } from '../../../src/errors.ts';
import type { Services } from '../../../src/services.ts';
import { readDocument, tableRows } from '../../support/documents.ts';
import { FakeCall } from '../cri/call.ts';

const { text } = await readDocument('README.md');

/** Calls of the table "What works" by the state that it gives them. */
const claimed = new Map(
  tableRows(text, 'RPC').flatMap(({ RPC = '', State = '' }) =>
    RPC.split(',').map((name): [string, string] => [name.trim(), State]),
  ),
);

const protos = loadProtos();
const names = [...Object.keys(protos.runtimeService), ...Object.keys(protos.imageService)];

/**
 * Whether a call answers UNIMPLEMENTED at once. Others wait for the recovery, which never ends here, or fail
 * for want of services, which are none.
 */
async function isUnimplemented(rpc: Rpc | undefined): Promise<boolean> {
  let kind = '';
  void rpc?.(new FakeCall({}) as never).catch((e: unknown) => {
    kind = kindOf(e);
  });
  await new Promise((resolve) => setImmediate(resolve));
  return kind === 'unimplemented';
}

async function reality(): Promise<Map<string, string>> {
  const never = new Promise<void>(() => {});
  const context: CallContext = { log: pino({ enabled: false }), recovery: { known: never, done: never } };
  const none = {} as Services;
  const all: Record<string, Rpc> = {
    ...runtimeService(none, context, protos.runtimeService),
    ...imageService(none, context, protos.imageService),
  };
  const found = new Map<string, string>();
  for (const name of names) found.set(name, (await isUnimplemented(all[name])) ? 'UNIMPLEMENTED' : 'works');
  return found;
}

describe('README.md, "What works"', () => {
  it('names each call of CRI once', () => {
    expect([...claimed.keys()].sort()).toEqual(names.sort());
  });

  /** When this fails, move the call that it names to the other row of the table. */
  it('says of each call what berthd does', async () => {
    const wrong = [...(await reality())].flatMap(([name, state]) =>
      claimed.get(name) === state ? [] : [`${name}: README says ${claimed.get(name)}, berthd: ${state}`],
    );
    expect(wrong).toEqual([]);
  });

  it('opens with the two commands', () => {
    const first = /^```sh.*\n([\s\S]*?)^```/m.exec(text)?.[1] ?? '';
    expect(first).toMatch(/^npm run demo\b.*\nnpm test\b.*\n$/);
  });
});
