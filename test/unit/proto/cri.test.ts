import type * as protobufjs from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { loadProtos } from '../../../proto/load.ts';
import {
  type Facts,
  parse,
  protobuf,
  readFacts,
  readFixture,
  uncommented,
} from '../../support/proto-facts.ts';

const fixture = readFixture<Facts>('cri-v1.json');
const cri = parse('cri.proto');
const berth = parse('berth.proto');
const facts = readFacts(cri, 'runtime.v1');

describe('cri.proto against CRI v1 of Kubernetes 1.36', () => {
  it('is compared with the whole protocol', () => {
    const rpcs = Object.values(fixture.services).flatMap((s) => Object.keys(s));
    expect(fixture.package).toBe('runtime.v1');
    expect(Object.keys(fixture.services)).toEqual(['RuntimeService', 'ImageService']);
    expect(rpcs).toHaveLength(41);
    expect(Object.keys(fixture.messages)).toHaveLength(170);
  });

  it('has its RPCs, with their requests, responses and streams, and no others', () => {
    expect(facts.services).toEqual(fixture.services);
  });

  it('has its messages, with the names, numbers, types and labels of their fields, and no others', () => {
    expect(facts.messages).toEqual(fixture.messages);
  });

  it('has its enums with their values, and no others', () => {
    expect(facts.enums).toEqual(fixture.enums);
  });

  it.each(['RuntimeService', 'ImageService'] as const)('is what %s is served by', (service) => {
    const { runtimeService, imageService } = loadProtos();
    const definition = service === 'RuntimeService' ? runtimeService : imageService;
    const served = Object.values(definition).map((m) => [m.path, m.requestStream, m.responseStream]);
    const wanted = Object.entries(fixture.services[service] ?? {}).map(([name, rpc]) => [
      `/runtime.v1.${service}/${name}`,
      false,
      rpc.streams === true,
    ]);
    expect(served).toEqual(wanted);
  });
});

describe.each([
  ['cri.proto', cri, 'runtime.v1', 41],
  ['berth.proto', berth, 'berth.v1', 6],
] as const)('the comments of %s', (_file, root, packageName, rpcs) => {
  it('say something about every service, RPC, message and enum', () => {
    const namespace = root.lookup(packageName) as protobufjs.Namespace;
    const services = namespace.nestedArray.filter((o) => o instanceof protobuf.Service);
    expect(services.flatMap((s) => s.methodsArray)).toHaveLength(rpcs);
    expect(uncommented(namespace)).toEqual([]);
  });
});
