import type * as protobufjs from 'protobufjs';
import { describe, expect, it } from 'vitest';
import { loadShimProtos } from '../../../proto/load-shim.ts';
import { type Facts, parse, readFacts, readFixture, uncommented } from '../../support/proto-facts.ts';

const fixture = readFixture<Facts>('shim-v2.json');
const root = parse('shim.proto');

const PACKAGES = [
  'containerd.task.v3',
  'containerd.task.v2',
  'containerd.types',
  'containerd.v1.types',
  'containerd.services.events.ttrpc.v1',
  'containerd.events',
  'containerd.runtime.sandbox.v1',
  'io.containerd.cgroups.v1',
  'io.containerd.cgroups.v2',
  'ttrpc',
];
const all = PACKAGES.map((name) => readFacts(root, name, ''));
const merged = <K extends 'services' | 'messages' | 'enums'>(kind: K) =>
  Object.assign({}, ...all.map((facts) => facts[kind])) as Facts[K];

describe("the shim's .proto files against containerd's API", () => {
  it('are compared with the whole of it', () => {
    expect(Object.keys(fixture.services)).toHaveLength(4);
    expect(Object.keys(fixture.messages).length).toBeGreaterThan(120);
  });

  it('have its services, with their methods, requests and answers, and no others', () => {
    expect(merged('services')).toEqual(fixture.services);
  });

  it('have its messages, with the names, numbers and types of their fields, and no others', () => {
    expect(merged('messages')).toEqual(fixture.messages);
  });

  it('have its enums with their values, and no others', () => {
    expect(merged('enums')).toEqual(fixture.enums);
  });

  it.each(PACKAGES)('say something about everything in %s', (name) => {
    expect(uncommented(root.lookup(name) as protobufjs.Namespace)).toEqual([]);
  });

  it('have a task service of each version, which differ in nothing but the name', () => {
    const { taskV2, taskV3 } = loadShimProtos();
    const paths = (service: object) =>
      Object.values(service).map(({ path }: { path: string }) => path.replace(/v[23]/, 'vX'));
    expect(paths(taskV2)).toEqual(paths(taskV3));
    const { services, messages } = fixture;
    const alike = (version: string) =>
      Object.fromEntries(
        Object.entries({ ...services, ...messages })
          .filter(([key]) => key.startsWith(`containerd.task.${version}.`))
          .map(([key, value]) => [
            key.replace(version, 'vX'),
            JSON.stringify(value).replaceAll(version, 'vX'),
          ]),
      );
    expect(alike('v2')).toEqual(alike('v3'));
  });
});
