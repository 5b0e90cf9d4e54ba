// Configuration of OHIF for msnode: one archive behind /dicom-web on the page's own origin, and a hanging
// protocol by which a study opens with the newest segmentation of msnode drawn on the series it was made from.
// It replaces app-config.js of the build; deploy/viewer/serve.py and nginx.conf serve it so.

(() => {
  const MADE_BY = 'msnode';
  const PROTOCOL = 'msnodeResult';
  let services, commands; // the viewer's own, known once it has started

  // What is drawn over an image: no probability map, which this viewer cannot show.
  const isResult = displaySet =>
    displaySet.Modality === 'SEG' &&
    displaySet.instance?.Manufacturer === MADE_BY &&
    displaySet.instance.SegmentationType !== 'FRACTIONAL' &&
    Boolean(displaySet.referencedDisplaySetInstanceUID);

  // A later revision has a higher series number.
  const newestResult = (displaySets = []) =>
    displaySets.filter(isResult).sort((a, b) => Number(b.SeriesNumber) - Number(a.SeriesNumber))[0];

  const isSource = (displaySet, { displaySets } = {}) =>
    displaySet.displaySetInstanceUID === newestResult(displaySets)?.referencedDisplaySetInstanceUID;

  const asList = value => (value === undefined ? [] : Array.isArray(value) ? value : Object.values(value));

  // The image on which most lesions are seen, the first of those with equally many; undefined without a result.
  const fullestImage = displaySets => {
    const result = newestResult(displaySets);
    const source = displaySets.find(displaySet => isSource(displaySet, { displaySets }));
    const lesions = new Map();
    for (const group of asList(result?.instance.PerFrameFunctionalGroupsSequence)) {
      const [derivation] = asList(group.DerivationImageSequence);
      const [image] = asList(derivation?.SourceImageSequence);
      const uid = image?.ReferencedSOPInstanceUID;
      lesions.set(uid, (lesions.get(uid) ?? 0) + 1);
    }
    const counts = (source?.images ?? []).map(image => lesions.get(image.SOPInstanceUID) ?? 0);
    const most = Math.max(0, ...counts);
    return most > 0 ? { index: counts.indexOf(most) } : undefined;
  };

  const viewportOptions = {
    viewportType: 'stack',
    toolGroupId: 'default',
    allowUnmatchedView: true, // any other series may be put in its place
  };

  const protocol = {
    id: PROTOCOL,
    name: 'Result over its source',
    locked: true,
    protocolMatchingRules: [],
    toolGroupIds: ['default'],
    numberOfPriorsReferenced: 0,
    defaultViewport: { viewportOptions, displaySets: [{ id: 'shown', matchedDisplaySetsIndex: -1 }] },
    displaySetSelectors: {
      shown: {
        seriesMatchingRules: [
          { weight: 10, attribute: 'numImageFrames', constraint: { greaterThan: { value: 0 } } },
          { weight: 20, attribute: 'isDisplaySetFromUrl', constraint: { equals: true } },
          { weight: 15, attribute: 'msnodeSource', constraint: { equals: { value: true } } },
        ],
      },
    },
    // The result is laid over its source afterwards: named here, it would keep other series out of the viewport.
    stages: [
      {
        name: 'default',
        viewportStructure: { layoutType: 'grid', properties: { rows: 1, columns: 1 } },
        viewports: [
          {
            viewportOptions: {
              ...viewportOptions,
              viewportId: 'default',
              initialImageOptions: { custom: 'sopInstanceLocation', defaultValue: { custom: 'msnodeFullestImage' } },
            },
            displaySets: [{ id: 'shown' }],
          },
        ],
      },
    ],
  };

  // Once for each study that is opened: whoever then takes the result away is left in peace.
  let isDrawn = false;
  let subscription;
  const drawResult = ({ viewportId }) => {
    const { displaySetService, viewportGridService } = services;
    const result = newestResult(displaySetService.getActiveDisplaySets());
    const shown = viewportGridService.getDisplaySetsUIDsForViewport(viewportId) ?? [];
    if (!isDrawn && result && shown.length === 1 && shown[0] === result.referencedDisplaySetInstanceUID) {
      isDrawn = true;
      const displaySetInstanceUID = result.displaySetInstanceUID;
      commands.runCommand('addDisplaySetAsLayer', { viewportId, displaySetInstanceUID });
    }
  };

  const extension = {
    id: 'msnode',
    preRegistration: ({ servicesManager, commandsManager }) => {
      services = servicesManager.services;
      commands = commandsManager;
      const { hangingProtocolService, displaySetService } = services;
      const ofResult = () => fullestImage(displaySetService.getActiveDisplaySets());
      hangingProtocolService.addCustomAttribute('msnodeSource', 'Source of the newest result', isSource);
      hangingProtocolService.addCustomAttribute('msnodeFullestImage', 'Image with most lesions', ofResult);
    },
    onModeEnter: () => {
      const { cornerstoneViewportService } = services;
      const { VIEWPORT_DATA_CHANGED } = cornerstoneViewportService.EVENTS;
      isDrawn = false;
      subscription = cornerstoneViewportService.subscribe(VIEWPORT_DATA_CHANGED, drawResult);
    },
    onModeExit: () => subscription?.unsubscribe(),
    getHangingProtocolModule: () => [{ name: PROTOCOL, protocol }],
  };

  window.config = {
    routerBasename: '/',
    extensions: [extension],
    modes: [],
    modesConfiguration: {
      '@ohif/mode-longitudinal': {
        hangingProtocol: { $set: PROTOCOL },
        routes: { 0: { layoutInstance: { props: { rightPanelClosed: { $set: false } } } } }, // lists the lesions
      },
    },
    customizationService: {
      'ohif.tours': { $set: [] },
      autoCineModalities: { $set: [] }, // the player would hide the notice on overlay and summary
    },
    showStudyList: true,
    maxNumberOfWebWorkers: 2,
    showLoadingIndicator: true,
    showWarningMessageForCrossOrigin: false,
    showCPUFallbackMessage: true,
    strictZSpacingForVolumeViewport: false, // slices of 2D series are never exactly equidistant
    disableConfirmationPrompts: true, // a segmentation put into a viewport is drawn without a question
    investigationalUseDialog: { option: 'never' },
    defaultDataSourceName: 'pacs',
    dataSources: [
      {
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
        sourceName: 'pacs',
        configuration: {
          friendlyName: 'PACS',
          name: 'pacs',
          qidoRoot: '/dicom-web',
          wadoRoot: '/dicom-web',
          wadoUriRoot: '/dicom-web',
          imageRendering: 'wadors',
          thumbnailRendering: 'wadors',
          enableStudyLazyLoad: true,
          supportsFuzzyMatching: false,
          supportsWildcard: true,
          qidoSupportsIncludeField: false,
          omitQuotationForMultipartRequest: true,
          dicomUploadEnabled: false,
          bulkDataURI: { enabled: true, relativeResolution: 'studies' },
        },
      },
    ],
  };
})();
