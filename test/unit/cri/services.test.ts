import { describe, expect, it } from 'vitest';
import { imageService, runtimeService } from '../../../cri/services.ts';
import { loadProtos } from '../../../proto/load.ts';
import type { Logger } from '../../../src/log.ts';
import type { Services } from '../../../src/services.ts';
import { eventually } from '../../support/eventually.ts';
import { FakeCall } from './call.ts';

const protos = loadProtos();
const quiet = () => undefined;
const log = { debug: quiet, info: quiet, warn: quiet } as unknown as Logger;
/** Recovery that never ends. */
const never = new Promise<void>(() => {});
const recovering = { log, recovery: { known: never, done: never } };
/** Nothing of the daemon is touched: a handler that is reached fails with INTERNAL. */
const nothing = {} as Services;
const runtime = runtimeService(nothing, recovering, protos.runtimeService);
const image = imageService(nothing, recovering, protos.imageService);

/** @returns whether the call has an end */
function ask(rpc: string): () => boolean {
  let isOver = false;
  const call = new FakeCall({});
  void (runtime[rpc] ?? image[rpc])?.(call as never).then(
    () => (isOver = true),
    () => (isOver = true),
  );
  return () => isOver;
}

describe('the services', () => {
  it('have a handler for every RPC of the protocol', () => {
    expect(Object.keys(runtime).sort()).toEqual(Object.keys(protos.runtimeService).sort());
    expect(Object.keys(image).sort()).toEqual(Object.keys(protos.imageService).sort());
    expect(Object.keys(runtime).length + Object.keys(image).length).toBe(41);
  });

  it.each(['Version', 'Status', 'RuntimeConfig', 'ImageFsInfo'])(
    'answer %s while berthd recovers',
    async (rpc) => {
      const isOver = ask(rpc);
      await eventually(() => expect(isOver()).toBe(true));
    },
  );

  it.each([
    ...['RunPodSandbox', 'StopPodSandbox', 'ListPodSandbox', 'PodSandboxStatus', 'CreateContainer'],
    ...['StartContainer', 'StopContainer', 'ListContainers', 'ContainerStatus', 'ExecSync', 'PullImage'],
    ...['ListImages', 'ImageStatus', 'RemoveImage', 'ContainerStats', 'UpdateRuntimeConfig'],
  ])('keep %s waiting until it has', async (rpc) => {
    const isOver = ask(rpc);
    await new Promise(setImmediate);
    expect(isOver()).toBe(false);
  });
});
